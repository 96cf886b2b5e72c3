/* Arm's MPS2 and MPS3 boards as QEMU emulates them: CMSDK UART, SysTick; code memory is RAM and acts as flash here. */
#include "../port.h"

#include <string.h>

#include "../loader.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define UART_DATA REGISTER(BOARD_UART)
#define UART_STATE REGISTER(BOARD_UART + 4)
#define UART_CONTROL REGISTER(BOARD_UART + 8)
#define UART_DIVIDER REGISTER(BOARD_UART + 16)
#define SYSTICK_CONTROL REGISTER(0xE000E010)
#define SYSTICK_RELOAD REGISTER(0xE000E014)
#define SYSTICK_VALUE REGISTER(0xE000E018)

static uint8_t *const code = (uint8_t *)FLASH_ORIGIN;

void port_init(void) {
    UART_DIVIDER = BOARD_CLOCK / 115200;
    UART_CONTROL = 3; /* transmit and receive */
    SYSTICK_RELOAD = BOARD_CLOCK / 1000 * LOADER_WINDOW_MS;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 5; /* core clock, no interrupt, on */
}

void port_put(uint8_t byte) {
    while (UART_STATE & 1) {}
    UART_DATA = byte;
}

int port_get(void) { return UART_STATE & 2 ? (int)(UART_DATA & 0xFF) : -1; }

int port_window_over(void) {
    static int over;
    over |= (SYSTICK_CONTROL >> 16) & 1; /* it has counted to zero; reading forgets */
    return over;
}

const uint8_t *port_flash(void) { return code; }

void port_erase(uint32_t at) { memset(code + at, 0xFF, PAGE_BYTES); }

void port_write(uint32_t at, const uint8_t *data, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) code[at + i] &= data[i];
}
