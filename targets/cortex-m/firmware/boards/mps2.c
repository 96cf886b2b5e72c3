/* Arm's MPS2 and MPS3 boards as QEMU emulates them: CMSDK UART, SysTick. BOARD_UART and BOARD_CLOCK come from the board. */
#include "../board.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define UART_DATA REGISTER(BOARD_UART)
#define UART_STATE REGISTER(BOARD_UART + 4)
#define UART_CONTROL REGISTER(BOARD_UART + 8)
#define UART_DIVIDER REGISTER(BOARD_UART + 16)
#define SYSTICK_CONTROL REGISTER(0xE000E010)
#define SYSTICK_RELOAD REGISTER(0xE000E014)
#define SYSTICK_VALUE REGISTER(0xE000E018)

static volatile uint32_t wraps;

void systick_handler(void) { wraps++; }

void board_init(void) {
    UART_DIVIDER = BOARD_CLOCK / 115200;
    UART_CONTROL = 3; /* transmit and receive */
    SYSTICK_RELOAD = 0xFFFFFF;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 7; /* core clock, interrupt, on */
}

void board_put(char character) {
    while (UART_STATE & 1) {}
    UART_DATA = (uint8_t)character;
}

int board_get(void) { return UART_STATE & 2 ? (int)(UART_DATA & 0xFF) : -1; }

uint64_t board_ticks(void) {
    uint32_t before, value;
    do {
        before = wraps;
        value = SYSTICK_VALUE;
    } while (before != wraps);
    return ((uint64_t)before << 24) + (0xFFFFFF - value);
}

uint32_t board_ticks_per_second(void) { return BOARD_CLOCK; }

void board_alive(void) {}
