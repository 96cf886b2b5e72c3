/* The runner: commands come in over the UART, JSON lines go out; every line carries its CRC (line.h).
 *
 *   hello                                             what is here
 *   run MAX TEMPERATURE TOP_P SEED SLIDE TEXT         answer a text (TEMPERATURE and TOP_P in thousandths; \n and \\)
 *   ids MAX TEMPERATURE TOP_P SEED SLIDE 1,2,3        answer tokens
 *   measure MAX 1,2,3                                 answer so many tokens, greedily, whatever they are
 *   loader                                            go to the loader, where the firmware was built for one
 *   the byte 3 (Ctrl-C)                               stop the answer
 *
 * Wait for `done` before the next command: what comes in during an answer is dropped.
 * Ticks are the board's clock; only the board knows whether they are time (hello says ticks_per_second and emulated).
 */
#include <string.h>

#include "../runtime/lm_tokenizer.h"
#include "board.h"
#include "engine.h"
#include "line.h"
#include "lm_config.h"

static char line[LM_LINE_BYTES];
static uint32_t ids[LM_PROMPT_TOKENS];
static engine_facts facts;
static lm_tokenizer tokenizer;
static int has_tokenizer;

static void event(const char *name) {
    line_text("{\"event\":\"");
    line_text(name);
    line_text("\"");
}

static void field(const char *name, uint64_t value) {
    line_text(",\"");
    line_text(name);
    line_text("\":");
    line_number(value);
}

static void text_field(const char *name, const char *value, size_t count) {
    line_text(",\"");
    line_text(name);
    line_text("\":\"");
    line_bytes(value, count);
    line_text("\"");
}

static void hex_field(const char *name, uint32_t value) {
    line_text(",\"");
    line_text(name);
    line_text("\":\"");
    line_hex(value);
    line_text("\"");
}

static void finish(void) {
    line_text("}");
    line_end();
}

static void error(const char *code, const char *message) {
    event("error");
    text_field("code", code, strlen(code));
    text_field("message", message, strlen(message));
    finish();
}

static const char *const STATUS[] = {"ok", "image", "crc", "memory", "token", "context", "runtime"};
static const char *const MEANING[] = {
    "", "no image of a model, or one of another version", "the image in flash is corrupted: flash it again",
    "the image needs more RAM than this firmware has", "a token is outside the vocabulary", "the context is full",
    "the runtime failed in the middle of a token"};

static void failed(lm_status status) { error(STATUS[status], MEANING[status]); }

static void hello(void) {
    event("hello");
    text_field("runner", facts.runner, strlen(facts.runner));
    field("protocol", 1);
    text_field("board", BOARD_NAME, sizeof BOARD_NAME - 1);
    text_field("kernels", facts.kernels, strlen(facts.kernels));
    hex_field("model_crc", facts.crc);
    field("vocab", facts.vocab);
    field("context", facts.context);
    field("ram", facts.ram);
    field("line", sizeof line - 1);
    field("prompt_tokens", LM_PROMPT_TOKENS);
    field("ticks_per_second", board_ticks_per_second());
    field("emulated", BOARD_EMULATED);
    finish();
}

/* One decimal number up to `most`, and what separates it from the next; sets `*bad` when there is no such number. */
static uint32_t number(char **text, uint32_t most, char separator, int *bad) {
    uint64_t value = 0;
    char *start = *text;
    while (**text >= '0' && **text <= '9' && value <= most) value = value * 10 + (uint64_t)(*(*text)++ - '0');
    if (*text == start || value > most || (**text && **text != separator)) *bad = 1;
    if (**text == separator) (*text)++;
    return (uint32_t)value;
}

/* Undo \n and \\ in place; returns the new length. */
static size_t unescaped(char *text) {
    char *to = text;
    for (char *from = text; *from; from++) {
        if (*from == '\\' && from[1]) *to++ = *++from == 'n' ? '\n' : *from;
        else *to++ = *from;
    }
    return (size_t)(to - text);
}

/* The prompt's tokens; the model's memory, which is free before a prompt, serves as scratch. */
static int encode(char *text, lm_ids *found) {
    size_t room;
    uint32_t *scratch = engine_scratch(&room);
    *found = (lm_ids){ids, LM_PROMPT_TOKENS, 0, scratch, room};
    int status = lm_tokenizer_prefix(&tokenizer, found);
    return status ? status : lm_tokenizer_encode(&tokenizer, text, unescaped(text), found);
}

static int listed(char *text, lm_ids *found) {
    int bad = 0;
    *found = (lm_ids){ids, LM_PROMPT_TOKENS, 0, NULL, 0};
    while (!bad && *text) {
        if (found->count == found->capacity) return LM_TOKENIZER_IDS_FULL;
        ids[found->count++] = number(&text, UINT32_MAX, ',', &bad);
    }
    return bad ? LM_TOKENIZER_BAD_TEXT : LM_TOKENIZER_OK;
}

/* One token through the model, in slices; 0 when the user stopped it. */
static int step(uint32_t token, int want_logits, lm_status *status) {
    *status = engine_begin(token, want_logits);
    if (*status != LM_OK) return 1;
    int more;
    do {
        more = engine_advance();
        board_alive();
        if (board_get() == 3) return 0;
    } while (more > 0);
    if (more < 0) *status = LM_FAILED;
    return 1;
}

static void answer(const lm_ids *prompt, uint32_t most, lm_sampler sampler, int stops) {
    const char *stop = "length";
    char piece[LM_PIECE_BYTES];
    lm_decoder decoder;
    lm_status status = LM_OK;
    uint32_t produced = 0;
    int going = 1;
    uint64_t start = board_ticks();
    size_t read = 0;
    for (; going && status == LM_OK && read < prompt->count; read++)
        going = step(prompt->ids[read], read + 1 == prompt->count, &status);
    if (status != LM_OK) {
        failed(status);
        return;
    }
    event("prefill");
    field("tokens", read);
    field("ticks", board_ticks() - start);
    finish();
    if (has_tokenizer) lm_decoder_start(&tokenizer, &decoder);
    while (going && produced < most) {
        const uint32_t crc = lm_crc32(0, engine_logits(), facts.vocab * sizeof(float));
        start = board_ticks();
        const uint32_t token = lm_sample(&sampler, engine_logits(), facts.vocab);
        const uint64_t sampling = board_ticks() - start;
        size_t length = 0;
        if (stops && has_tokenizer && lm_tokenizer_is_stop(&tokenizer, token)) {
            stop = "eos";
            break;
        }
        if (has_tokenizer) lm_decoder_token(&tokenizer, &decoder, token, piece, sizeof piece, &length);
        produced++;
        start = board_ticks();
        if (produced < most) going = step(token, 1, &status);
        event("token");
        field("id", token);
        text_field("text", piece, length);
        hex_field("logits", crc);
        field("sample_ticks", sampling);
        field("ticks", board_ticks() - start);
        finish();
        if (status == LM_FULL) stop = "context";
        if (status != LM_OK) break;
    }
    if (!going) stop = "user";
    if (status == LM_FAILED) stop = "runtime";
    size_t left = 0;
    if (has_tokenizer) lm_decoder_end(&tokenizer, &decoder, piece, sizeof piece, &left);
    event("done");
    field("prompt_tokens", prompt->count);
    field("new_tokens", produced);
    text_field("stop", stop, strlen(stop));
    text_field("text", piece, left); /* of a character that never became whole */
    field("stack", board_stack_used());
    finish();
}

static void run(char *text, int as_text) {
    static const char *const WHY[] = {"", "the tokenizer's table is damaged", "the prompt is not valid",
                                      "the prompt has too many tokens", "the prompt has too long a word", ""};
    int bad = 0;
    const uint32_t most = number(&text, UINT32_MAX, ' ', &bad), temperature = number(&text, 100000, ' ', &bad);
    const uint32_t top_p = number(&text, 1000, ' ', &bad), seed = number(&text, UINT32_MAX, ' ', &bad);
    const uint32_t slide = number(&text, 1, ' ', &bad);
    const lm_sampler sampler = {(float)temperature / 1000.0f, (float)top_p / 1000.0f, seed};
    lm_ids prompt;
    if (bad) {
        error("command", "expected MAX TEMPERATURE (to 100000) TOP_P (to 1000) SEED SLIDE (0, 1) and a prompt");
        return;
    }
    if (as_text && !has_tokenizer) {
        error("command", "this image has no tokenizer: send ids");
        return;
    }
    const int status = as_text ? encode(text, &prompt) : listed(text, &prompt);
    if (status != LM_TOKENIZER_OK || prompt.count == 0) {
        error("prompt", status ? WHY[status] : "the prompt is empty");
        return;
    }
    if (!engine_reset(slide != 0)) {
        error("command", "this model's context cannot slide");
        return;
    }
    answer(&prompt, most, sampler, 1);
}

static void measure(char *text) {
    int bad = 0;
    const uint32_t most = number(&text, UINT32_MAX, ' ', &bad);
    const lm_sampler greedy = {0.0f, 1.0f, 1};
    lm_ids prompt;
    if (bad || listed(text, &prompt) != LM_TOKENIZER_OK || prompt.count == 0 || !engine_reset(0)) {
        error("command", "expected MAX and tokens, as many as the prompt may have");
        return;
    }
    answer(&prompt, most, greedy, 0);
}

int main(void) {
    board_init();
    const lm_status status = engine_open(&facts);
    if (status == LM_OK) {
        has_tokenizer = facts.tokenizer_size
                        && lm_tokenizer_open(&tokenizer, facts.tokenizer, facts.tokenizer_size) == LM_TOKENIZER_OK;
        hello();
    } else {
        failed(status);
    }
    for (;;) {
        size_t length;
        const line_state state = line_poll(line, sizeof line, &length);
        board_alive();
        if (state == LINE_NONE) continue;
#ifdef LOADER_FLAG
        if (state == LINE_GOOD && strcmp(line, "loader") == 0) board_to_loader();
#endif
        if (state == LINE_BROKEN) error("line", "the checksum does not fit: the line was cut or changed; send it again");
        else if (state == LINE_LONG) error("line", "the line is too long");
        else if (status != LM_OK) failed(status);
        else if (strcmp(line, "hello") == 0) hello();
        else if (strncmp(line, "run ", 4) == 0) run(line + 4, 1);
        else if (strncmp(line, "ids ", 4) == 0) run(line + 4, 0);
        else if (strncmp(line, "measure ", 8) == 0) measure(line + 8);
        else error("command", "there are: hello, run, ids, measure");
    }
}
