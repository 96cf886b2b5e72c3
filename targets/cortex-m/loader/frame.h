/* Frames of the loader's protocol: COBS between zeros, with a CRC-32. See loader.h. */
#ifndef FRAME_H
#define FRAME_H

#include <stdint.h>

#define FRAME_BYTES (BLOCK_BYTES + 48u) /* type, sequence, status, body, CRC-32 */

typedef enum { FRAME_NONE, FRAME_GOOD, FRAME_BROKEN } frame_state;

/* Collect one byte. FRAME_GOOD: `*data` holds `*length` bytes, type first, without the CRC. */
frame_state frame_byte(uint8_t byte, uint8_t **data, uint32_t *length);

/* Send a frame; `data` has four bytes of room behind `length` for the CRC. */
void frame_send(uint8_t *data, uint32_t length);

uint32_t frame_crc(uint32_t crc, const uint8_t *data, uint32_t count);
uint32_t get32(const uint8_t *from);
void put32(uint8_t *to, uint32_t number);

#endif
