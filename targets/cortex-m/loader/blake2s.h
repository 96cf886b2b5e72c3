/* BLAKE2s with a key (RFC 7693), of what lies in memory in one piece. */
#ifndef BLAKE2S_H
#define BLAKE2S_H

#include <stdint.h>

#define BLAKE2S_BYTES 32u /* of a key and of a tag */
#define BLAKE2S_BLOCK 64u

/* The tag of a first block and of `count` bytes behind it, at least one. */
void blake2s(uint8_t *tag, const uint8_t *key, const uint8_t *first, const uint8_t *data, uint32_t count);

#endif
