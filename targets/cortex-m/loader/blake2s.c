#include "blake2s.h"

#include <string.h>

#include "frame.h"

static const uint32_t start[8] = {0x6A09E667u, 0xBB67AE85u, 0x3C6EF372u, 0xA54FF53Au,
                                  0x510E527Fu, 0x9B05688Cu, 0x1F83D9ABu, 0x5BE0CD19u};

/* Which words of a block each round takes: two to a byte, the first in its lower half. */
static const uint8_t order[10][8] = {
    {0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE}, {0xAE, 0x84, 0xF9, 0x6D, 0xC1, 0x20, 0x7B, 0x35},
    {0x8B, 0x0C, 0x25, 0xDF, 0xEA, 0x63, 0x17, 0x49}, {0x97, 0x13, 0xCD, 0xEB, 0x62, 0xA5, 0x04, 0x8F},
    {0x09, 0x75, 0x42, 0xFA, 0x1E, 0xCB, 0x86, 0xD3}, {0xC2, 0xA6, 0xB0, 0x38, 0xD4, 0x57, 0xEF, 0x91},
    {0x5C, 0xF1, 0xDE, 0xA4, 0x70, 0x36, 0x29, 0xB8}, {0xBD, 0xE7, 0x1C, 0x93, 0x05, 0x4F, 0x68, 0xA2},
    {0xF6, 0x9E, 0x3B, 0x80, 0x2C, 0x7D, 0x41, 0x5A}, {0x2A, 0x48, 0x67, 0x51, 0xBF, 0xE9, 0xC3, 0x0D},
};

static uint32_t turned(uint32_t word, unsigned bits) { return word >> bits | word << (32 - bits); }

static void mix(uint32_t *v, unsigned a, unsigned b, unsigned c, unsigned d, uint32_t one, uint32_t other) {
    v[a] += v[b] + one;
    v[d] = turned(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = turned(v[b] ^ v[c], 12);
    v[a] += v[b] + other;
    v[d] = turned(v[d] ^ v[a], 8);
    v[c] += v[d];
    v[b] = turned(v[b] ^ v[c], 7);
}

/* Take a block in; `counted` bytes have come with it. */
static void compress(uint32_t *state, const uint8_t *block, uint32_t counted, int last) {
    uint32_t v[16];
    memcpy(v, state, 32);
    memcpy(v + 8, start, 32);
    v[12] ^= counted;
    if (last) v[14] = ~v[14];
    for (unsigned round = 0; round < 10; round++)
        for (unsigned i = 0; i < 8; i++) {
            const unsigned shift = i / 4; /* columns, then diagonals */
            const uint8_t words = order[round][i];
            mix(v, i % 4, 4 + (i + shift) % 4, 8 + (i + 2 * shift) % 4, 12 + (i + 3 * shift) % 4,
                get32(block + 4 * (words & 15)), get32(block + 4 * (words >> 4)));
        }
    for (unsigned i = 0; i < 8; i++) state[i] ^= v[i] ^ v[i + 8];
}

void blake2s(uint8_t *tag, const uint8_t *key, const uint8_t *first, const uint8_t *data, uint32_t count) {
    uint8_t block[BLAKE2S_BLOCK] = {0};
    uint32_t state[8], counted = 2 * BLAKE2S_BLOCK;
    memcpy(state, start, sizeof state);
    state[0] ^= 0x01010000u | BLAKE2S_BYTES << 8 | BLAKE2S_BYTES;
    memcpy(block, key, BLAKE2S_BYTES);
    compress(state, block, BLAKE2S_BLOCK, 0);
    compress(state, first, counted, 0);
    for (; count > BLAKE2S_BLOCK; count -= BLAKE2S_BLOCK, data += BLAKE2S_BLOCK)
        compress(state, data, counted += BLAKE2S_BLOCK, 0);
    memset(block, 0, sizeof block);
    memcpy(block, data, count);
    compress(state, block, counted + count, 1);
    for (unsigned i = 0; i < 8; i++) put32(tag + 4 * i, state[i]);
}
