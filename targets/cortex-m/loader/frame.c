#include "frame.h"

#include "port.h"

static uint8_t received[FRAME_BYTES];
static uint32_t used;
static uint8_t left;    /* bytes of this COBS group that are still to come */
static uint8_t zero;    /* a zero follows the group, unless the frame ends with it */
static uint8_t spoiled; /* too long */

uint32_t frame_crc(uint32_t crc, const uint8_t *data, uint32_t count) {
    static const uint32_t table[16] = {0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
                                       0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
                                       0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
    crc = ~crc;
    while (count--) {
        crc ^= *data++;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

uint32_t get32(const uint8_t *from) {
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

void put32(uint8_t *to, uint32_t number) {
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(number >> 8 * i);
}

static void keep(uint8_t byte) {
    if (used < sizeof received) received[used++] = byte;
    else spoiled = 1;
}

/* The zero at a frame's end has come. */
static frame_state ended(uint8_t **data, uint32_t *length) {
    const uint32_t count = used;
    const int cut = left || spoiled;
    used = left = zero = spoiled = 0;
    if (count == 0 && !cut) return FRAME_NONE;
    if (cut || count < 6 || frame_crc(0, received, count - 4) != get32(received + count - 4)) return FRAME_BROKEN;
    *data = received;
    *length = count - 4;
    return FRAME_GOOD;
}

frame_state frame_byte(uint8_t byte, uint8_t **data, uint32_t *length) {
    if (byte == 0) return ended(data, length);
    if (left) {
        left--;
        keep(byte);
        return FRAME_NONE;
    }
    if (zero) keep(0);
    zero = byte != 0xFF;
    left = (uint8_t)(byte - 1);
    return FRAME_NONE;
}

void frame_send(uint8_t *data, uint32_t length) {
    put32(data + length, frame_crc(0, data, length));
    length += 4;
    port_put(0);
    for (uint32_t start = 0; start <= length;) {
        uint32_t count = 0;
        while (count < 254 && start + count < length && data[start + count]) count++;
        port_put((uint8_t)(count + 1));
        for (uint32_t i = 0; i < count; i++) port_put(data[start + i]);
        start += count;
        if (count < 254) start++; /* the zero, or the end */
    }
    port_put(0);
}
