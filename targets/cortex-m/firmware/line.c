#include "line.h"

#include <string.h>

#include "../runtime/lm.h"
#include "board.h"

static uint32_t crc;
static const char digits[] = "0123456789abcdef";

static void put(char character) {
    crc = lm_crc32(crc, &character, 1);
    board_put(character);
}

void line_text(const char *text) {
    while (*text) put(*text++);
}

void line_bytes(const char *bytes, size_t count) {
    while (count--) {
        const uint8_t byte = (uint8_t)*bytes++;
        if (byte == '"' || byte == '\\') {
            put('\\');
            put((char)byte);
        } else if (byte < 0x20 || byte == 0x7F) {
            line_text("\\u00");
            put(digits[byte >> 4]);
            put(digits[byte & 15]);
        } else {
            put((char)byte);
        }
    }
}

void line_number(uint64_t number) {
    char text[21];
    char *first = text + sizeof text - 1;
    *first = 0;
    do *--first = (char)('0' + number % 10);
    while (number /= 10);
    line_text(first);
}

void line_hex(uint32_t number) {
    for (int shift = 28; shift >= 0; shift -= 4) put(digits[number >> shift & 15]);
}

void line_end(void) {
    const uint32_t sum = crc;
    board_put('*');
    for (int shift = 28; shift >= 0; shift -= 4) board_put(digits[sum >> shift & 15]);
    board_put('\n');
    crc = 0;
}

static int hex_digit(char character) {
    if (character >= '0' && character <= '9') return character - '0';
    if (character >= 'a' && character <= 'f') return character - 'a' + 10;
    return -1;
}

/* Cut the checksum off a line and compare it. */
static int whole(char *line, size_t *length) {
    if (*length < 9 || line[*length - 9] != '*') return 0;
    uint32_t wanted = 0;
    for (size_t i = *length - 8; i < *length; i++) {
        const int digit = hex_digit(line[i]);
        if (digit < 0) return 0;
        wanted = wanted << 4 | (uint32_t)digit;
    }
    *length -= 9;
    line[*length] = 0;
    return lm_crc32(0, line, *length) == wanted;
}

line_state line_poll(char *line, size_t capacity, size_t *length) {
    static size_t used;
    for (int byte; (byte = board_get()) >= 0;) {
        if (byte == '\r' || byte == 3) continue; /* a Ctrl-C that came when the answer was done */
        if (byte != '\n') {
            if (used < capacity - 1) line[used] = (char)byte;
            used += used < capacity;
            continue;
        }
        const size_t count = used;
        used = 0;
        if (count == 0) continue;
        if (count >= capacity) return LINE_LONG;
        *length = count;
        return whole(line, length) ? LINE_GOOD : LINE_BROKEN;
    }
    return LINE_NONE;
}
