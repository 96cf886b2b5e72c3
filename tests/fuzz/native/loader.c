/* The UART loader over flash that is an array. The input is a list of bodies of frames; some bytes come as they are. */
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "loader.h"
#include "port.h"

static uint8_t memory[FLASH_BYTES];
static int started;

void port_init(void) {}
void port_put(uint8_t byte) { (void)byte; }
int port_get(void) { return -1; }
int port_window_over(void) { return 0; }
const uint8_t *port_flash(void) { return memory; }
void port_erase(uint32_t at) {
    if (at % PAGE_BYTES || at < LOADER_BYTES - PAGE_BYTES || at >= FLASH_BYTES) abort();
    memset(memory + at, 0xFF, PAGE_BYTES);
}
void port_write(uint32_t at, const uint8_t *data, uint32_t count) {
    if (at < LOADER_BYTES - PAGE_BYTES || at > FLASH_BYTES || count > FLASH_BYTES - at) abort();
    for (uint32_t i = 0; i < count; i++) memory[at + i] &= data[i];
}

static void give(uint8_t byte) {
    if (!started) started = loader_byte(byte);
}

/* A frame as frame_send makes it, to the loader. */
static void frame(const uint8_t *body, uint32_t length) {
    uint8_t whole[FRAME_BYTES + 4];
    memcpy(whole, body, length);
    put32(whole + length, frame_crc(0, body, length));
    length += 4;
    give(0);
    for (uint32_t start = 0; start <= length;) {
        uint32_t count = 0;
        while (count < 254 && start + count < length && whole[start + count]) count++;
        give((uint8_t)(count + 1));
        for (uint32_t i = 0; i < count; i++) give(whole[start + i]);
        start += count;
        if (count < 254) start++;
    }
    give(0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    memset(memory, 0xFF, sizeof memory);
    started = 0;
    give(0);
    while (size > 2 && !started) {
        const uint32_t kind = *data++;
        uint32_t length = kind & 0x80 ? (kind & 0x7F) * 16u : kind;
        size--;
        if (length > size) length = (uint32_t)size;
        if (length > FRAME_BYTES - 4) length = FRAME_BYTES - 4;
        if (kind == 0x7F) {
            for (uint32_t i = 0; i < length; i++) give(data[i]);
        } else {
            frame(data, length);
        }
        data += length;
        size -= length;
    }
    loader_whole();
    loader_announce("reset");
    return 0;
}
