/* The firmware's runner on a board whose UART says the input; the lines get their checksums, but for some. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "sizes.h" /* LM_LINE_BYTES, LM_PROMPT_TOKENS, LM_PIECE_BYTES and a tokenizer's table, written by the test */

#define main firmware
#include "main.c"
#undef main

#define VOCAB 300u
#define CONTEXT 24u

static jmp_buf ended;
static const uint8_t *input;
static size_t left, pending;
static char sealed[16];
static uint32_t sum, position;
static uint32_t scratch[256];
static float logits[VOCAB];

void board_init(void) {}
void board_put(char character) { (void)character; }
uint64_t board_ticks(void) { return position; }
uint32_t board_ticks_per_second(void) { return 1000; }
uint32_t board_stack_used(void) { return 0; }
void board_alive(void) {}

/* The next byte; in front of the end of a line, `*` and the sum of the line so far. */
int board_get(void) {
    if (pending) return (unsigned char)sealed[--pending];
    if (!left) longjmp(ended, 1);
    const uint8_t byte = *input++;
    left--;
    if (byte != '\n') {
        if (byte != '\r' && byte != 3) sum = lm_crc32(sum, &byte, 1);
        return byte;
    }
    char text[10];
    snprintf(text, sizeof text, "*%08x", (unsigned)sum);
    sealed[pending++] = '\n';
    for (int i = 8; i >= 0; i--) sealed[pending++] = text[i];
    sum = 0;
    return (unsigned char)sealed[--pending];
}

lm_status engine_open(engine_facts *found) {
    *found = (engine_facts){"fuzz", "none", 1, VOCAB, CONTEXT, 1, TABLE, sizeof TABLE};
    return LM_OK;
}
uint32_t *engine_scratch(size_t *words) {
    *words = sizeof scratch / sizeof *scratch;
    return scratch;
}
int engine_reset(int slide) {
    position = 0;
    return !slide;
}
lm_status engine_begin(uint32_t token, int want_logits) {
    (void)want_logits;
    if (token >= VOCAB) return LM_BAD_TOKEN;
    if (position >= CONTEXT) return LM_FULL;
    logits[token] += 1.0f;
    position++;
    return LM_OK;
}
int engine_advance(void) { return 0; }
float *engine_logits(void) { return logits; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t end[] = "\n";
    input = end; /* what the run before left of a line */
    left = 1;
    sum = 0;
    pending = 0;
    if (!setjmp(ended)) {
        size_t length;
        for (;;) line_poll(line, sizeof line, &length);
    }
    input = data;
    left = size;
    if (!setjmp(ended)) firmware();
    return 0;
}
