#include "loader.h"

#include <string.h>

#include "frame.h"
#include "port.h"
#ifdef LOADER_KEYED
#include "blake2s.h"
#include "loader_key.h" /* LOADER_KEY, 32 bytes as an initializer */
#define KEYED 1
#define VERSIONS (LOADER_BYTES - 3u * PAGE_BYTES) /* two pages */
#define COMMIT_BYTES (12u + BLAKE2S_BYTES)
#else
#define KEYED 0
#define COMMIT_BYTES 8u
#endif

#define ROOM (FLASH_BYTES - LOADER_BYTES)
#define RECORD (LOADER_BYTES - PAGE_BYTES)
#define MAGIC 0x44454B4Fu
#define MOST_SUMS 128u

#if BLOCK_BYTES % 4 || BLOCK_BYTES < 4 * MOST_SUMS || (PAGE_BYTES % BLOCK_BYTES && BLOCK_BYTES % PAGE_BYTES)
#error "blocks are words, and whole pages or whole parts of one"
#endif
#if FLASH_BYTES % PAGE_BYTES || LOADER_BYTES % PAGE_BYTES || ROOM % BLOCK_BYTES || FLASH_BYTES <= LOADER_BYTES
#error "flash is whole pages and blocks"
#endif

static uint8_t answer[FRAME_BYTES];
static uint32_t answered; /* bytes behind the status */
static int called;

static const uint8_t *flash(uint32_t at) { return port_flash() + at; }

static uint32_t sum(uint32_t offset, uint32_t length) { return frame_crc(0, flash(LOADER_BYTES + offset), length); }

static int inside(uint32_t offset, uint32_t length) { return offset <= ROOM && length <= ROOM - offset; }

static int blank(uint32_t at, uint32_t length) {
    const uint8_t *here = flash(at);
    while (length && *here == 0xFF) here++, length--;
    return length == 0;
}

static int erased(uint32_t at) {
    if (!blank(at, PAGE_BYTES)) port_erase(at);
    return blank(at, PAGE_BYTES);
}

static int recorded(void) {
    const uint8_t *record = flash(RECORD);
    return get32(record) == MAGIC && get32(record + 12) == frame_crc(0, record, 12) && get32(record + 4) <= ROOM;
}

int loader_whole(void) {
    const uint8_t *record = flash(RECORD);
    return recorded() && sum(0, get32(record + 4)) == get32(record + 8);
}

int loader_called(void) { return called; }

#ifdef LOADER_KEYED
/* The version that a page holds; 0 where it holds none, or half of one. */
static uint32_t held(uint32_t page) {
    const uint32_t version = get32(flash(page));
    return version == ~get32(flash(page) + 4) ? version : 0;
}

static uint32_t newest(void) {
    const uint32_t one = held(VERSIONS), other = held(VERSIONS + PAGE_BYTES);
    return one > other ? one : other;
}
#endif

static uint8_t hello(void) {
    static const char name[] = BOARD_NAME;
    uint8_t *to = answer + 3;
    const int whole = loader_whole();
    const uint32_t numbers[] = {PAGE_BYTES,
                                FLASH_ORIGIN + LOADER_BYTES,
                                ROOM,
                                RAM_ORIGIN,
                                RAM_BYTES,
                                whole ? get32(flash(RECORD) + 4) : 0,
                                whole ? get32(flash(RECORD) + 8) : 0};
    const uint32_t letters = sizeof name - 1 < 12 ? sizeof name - 1 : 12;
    *to++ = LOADER_VERSION;
    *to++ = (uint8_t)(whole | KEYED << 1);
    *to++ = (uint8_t)(BLOCK_BYTES & 0xFF);
    *to++ = (uint8_t)(BLOCK_BYTES >> 8);
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++, to += 4) put32(to, numbers[i]);
#ifdef LOADER_KEYED
    put32(to, newest());
    to += 4;
#endif
    memcpy(to, name, letters);
    answered = (uint32_t)(to - answer) - 3 + letters;
    return OK;
}

static uint8_t sums(const uint8_t *body, uint32_t length) {
    const uint32_t first = length == 6 ? get32(body) : 0, count = length == 6 ? body[4] | (uint32_t)body[5] << 8 : 0;
    if (count == 0 || count > MOST_SUMS) return BAD_REQUEST;
    if (first >= ROOM / BLOCK_BYTES || count > ROOM / BLOCK_BYTES - first) return OUTSIDE;
    for (uint32_t i = 0; i < count; i++) put32(answer + 3 + 4 * i, sum((first + i) * BLOCK_BYTES, BLOCK_BYTES));
    answered = 4 * count;
    return OK;
}

static uint8_t erase(uint32_t offset, uint32_t length) {
    if (!inside(offset, length) || offset % PAGE_BYTES || length % PAGE_BYTES) return OUTSIDE;
    if (!erased(RECORD)) return FLASH_FAILED;
    for (uint32_t done = 0; done < length; done += PAGE_BYTES)
        if (!erased(LOADER_BYTES + offset + done)) return FLASH_FAILED;
    return OK;
}

static uint8_t write(uint32_t offset, const uint8_t *data, uint32_t length) {
    const uint32_t at = LOADER_BYTES + offset;
    if (!inside(offset, length) || offset % 4 || length % 4) return OUTSIDE;
    if (memcmp(flash(at), data, length) == 0) return OK;
    for (uint32_t i = 0; i < length; i++)
        if ((flash(at)[i] & data[i]) != data[i]) return NOT_ERASED;
    if (!erased(RECORD)) return FLASH_FAILED;
    port_write(at, data, length);
    return memcmp(flash(at), data, length) == 0 ? OK : FLASH_FAILED;
}

/* Whether it begins with vectors that this board can start from. */
static int startable(uint32_t size) {
    const uint32_t stack = get32(flash(LOADER_BYTES)), start = get32(flash(LOADER_BYTES) + 4);
    const uint32_t origin = FLASH_ORIGIN + LOADER_BYTES;
    return size >= 8 && stack > RAM_ORIGIN && stack - RAM_ORIGIN <= RAM_BYTES && (start & 1) && start - origin < size;
}

#ifdef LOADER_KEYED
/* Keep a version for good: in the page that does not hold the newest, so that one of the two is there at any moment. */
static int keep_version(uint32_t version) {
    const uint32_t page = held(VERSIONS) == newest() ? VERSIONS + PAGE_BYTES : VERSIONS;
    uint8_t words[8];
    if (version <= newest()) return 1;
    put32(words, version);
    put32(words + 4, ~version);
    if (!erased(page)) return 0;
    port_write(page, words, sizeof words);
    return held(page) == version;
}

/* Whether who has the key vouches for this application, and it is not older than one before; `proof`: version, tag. */
static uint8_t vouched(uint32_t size, const uint8_t *proof) {
    static const uint8_t key[BLAKE2S_BYTES] = LOADER_KEY;
    uint8_t first[BLAKE2S_BLOCK] = "edgesdk firmware", tag[BLAKE2S_BYTES], wrong = 0;
    const uint32_t version = get32(proof);
    put32(first + 16, size);
    put32(first + 20, version);
    blake2s(tag, key, first, flash(LOADER_BYTES), size);
    for (uint32_t i = 0; i < sizeof tag; i++) wrong |= tag[i] ^ proof[4 + i];
    if (wrong) return WRONG_TAG;
    if (version < newest()) return TOO_OLD;
    return keep_version(version) ? OK : FLASH_FAILED;
}
#else
static uint8_t vouched(uint32_t size, const uint8_t *proof) {
    (void)size;
    (void)proof;
    return OK;
}
#endif

static uint8_t commit(const uint8_t *body) {
    const uint32_t size = get32(body), crc = get32(body + 4);
    uint8_t record[16];
    if (size > ROOM) return OUTSIDE;
    if (sum(0, size) != crc) return WRONG_SUM;
    if (!startable(size)) return NOT_AN_APP;
    const uint8_t status = vouched(size, body + 8);
    if (status != OK) return status;
    put32(record, MAGIC);
    put32(record + 4, size);
    put32(record + 8, crc);
    put32(record + 12, frame_crc(0, record, 12));
    if (memcmp(flash(RECORD), record, sizeof record) == 0) return OK;
    if (!erased(RECORD)) return FLASH_FAILED;
    port_write(RECORD, record, sizeof record);
    return loader_whole() ? OK : FLASH_FAILED;
}

static uint8_t looked_at(uint8_t type, uint32_t offset, uint32_t length) {
    if (!inside(offset, length)) return OUTSIDE;
    if (type == SUM) {
        put32(answer + 3, sum(offset, length));
        answered = 4;
        return OK;
    }
    if (length > BLOCK_BYTES) return BAD_REQUEST;
    memcpy(answer + 3, flash(LOADER_BYTES + offset), length);
    answered = length;
    return OK;
}

static uint8_t handled(uint8_t type, const uint8_t *body, uint32_t length) {
    if (type == HELLO && length == 0) return hello();
    if (type == SUMS) return sums(body, length);
    if (type == WRITE && length > 4 && length <= BLOCK_BYTES + 4) return write(get32(body), body + 4, length - 4);
    if (type == BOOT && length == 0) return loader_whole() ? OK : NO_APP;
    if (type == COMMIT && length == COMMIT_BYTES) return commit(body);
    if (length != 8) return BAD_REQUEST;
    if (type == ERASE) return erase(get32(body), get32(body + 4));
    if (type == READ || type == SUM) return looked_at(type, get32(body), get32(body + 4));
    return BAD_REQUEST;
}

int loader_byte(uint8_t byte) {
    uint8_t *frame;
    uint32_t length;
    const frame_state state = frame_byte(byte, &frame, &length);
    if (state == FRAME_NONE) return 0;
    answered = 0;
    if (state == FRAME_BROKEN) {
        answer[0] = ANSWER;
        answer[1] = 0;
        answer[2] = BROKEN;
    } else {
        called = 1;
        answer[0] = frame[0] | ANSWER;
        answer[1] = frame[1];
        answer[2] = handled(frame[0], frame + 2, length - 2);
        if (answer[2] != OK) answered = 0;
    }
    frame_send(answer, 3 + answered);
    return state == FRAME_GOOD && frame[0] == BOOT && answer[2] == OK;
}

static uint32_t line_crc;

static void text(const char *words) {
    for (; *words; words++) {
        const uint8_t byte = (uint8_t)*words;
        line_crc = frame_crc(line_crc, &byte, 1);
        port_put(byte);
    }
}

void loader_announce(const char *why) {
    port_put('\n');
    line_crc = 0;
    text("{\"event\":\"loader\",\"protocol\":1,\"board\":\"" BOARD_NAME "\",\"why\":\"");
    text(why);
    text("\"}");
    const uint32_t crc = line_crc;
    text("*");
    for (int shift = 28; shift >= 0; shift -= 4) port_put((uint8_t)"0123456789abcdef"[crc >> shift & 15]);
    port_put('\n');
}
