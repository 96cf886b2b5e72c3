/* Nordic nRF51: UART, NVMC, TIMER0 as the window's clock (the core has no SysTick). Pins come from the board. */
#include "../port.h"

#include "../loader.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define CLOCK_START REGISTER(0x40000000)
#define CLOCK_STARTED REGISTER(0x40000100)
#define UART(offset) REGISTER(0x40002000 + (offset))
#define UART_START_RX UART(0x000)
#define UART_START_TX UART(0x008)
#define UART_RX_READY UART(0x108)
#define UART_TX_READY UART(0x11C)
#define UART_ERRORS UART(0x480)
#define UART_ENABLE UART(0x500)
#define UART_TX_PIN UART(0x50C)
#define UART_RX_PIN UART(0x514)
#define UART_RX UART(0x518)
#define UART_TX UART(0x51C)
#define UART_BAUD UART(0x524)
#define TIMER(offset) REGISTER(0x40008000 + (offset))
#define NVMC_READY REGISTER(0x4001E400)
#define NVMC_CONFIG REGISTER(0x4001E504) /* 0: read, 1: write, 2: erase */
#define NVMC_ERASE_PAGE REGISTER(0x4001E508)
#define GPIO_OUT_SET REGISTER(0x50000508)
#define GPIO_PIN(number) REGISTER(0x50000700 + 4 * (number)) /* 0: input, 1: output */

static uint8_t *const code = (uint8_t *)FLASH_ORIGIN;

void port_init(void) {
    CLOCK_STARTED = 0;
    CLOCK_START = 1; /* the crystal: the other oscillator is too inexact for a UART */
    while (CLOCK_STARTED == 0) {}
    TIMER(0x004) = 1; /* stop */
    TIMER(0x504) = 0; /* a timer */
    TIMER(0x508) = 3; /* of 32 bits */
    TIMER(0x510) = 4; /* at 1 MHz */
    TIMER(0x00C) = 1; /* from zero */
    GPIO_OUT_SET = 1u << PORT_TX_PIN;
    GPIO_PIN(PORT_TX_PIN) = 1;
    GPIO_PIN(PORT_RX_PIN) = 0;
    UART_TX_PIN = PORT_TX_PIN;
    UART_RX_PIN = PORT_RX_PIN;
    UART_BAUD = 0x01D7E000; /* 115200 */
    UART_ENABLE = 4;
    UART_RX_READY = 0;
    UART_START_RX = 1;
    UART_START_TX = 1;
    TIMER(0x000) = 1; /* start; after the UART: QEMU looks at a UART that has started only when something else happens */
}

void port_put(uint8_t byte) {
    UART_TX_READY = 0;
    UART_TX = byte;
    while (UART_TX_READY == 0) {}
}

int port_get(void) {
    UART_ERRORS = UART_ERRORS; /* an overrun or a break is a wrong checksum, no more */
    if (UART_RX_READY == 0) return -1;
    UART_RX_READY = 0;
    return (int)(UART_RX & 0xFF);
}

int port_window_over(void) {
    TIMER(0x040) = 1; /* capture */
    return TIMER(0x540) >= LOADER_WINDOW_MS * 1000u;
}

const uint8_t *port_flash(void) { return code; }

static void controller(uint32_t mode) {
    while (NVMC_READY == 0) {}
    NVMC_CONFIG = mode;
    while (NVMC_READY == 0) {}
}

void port_erase(uint32_t at) {
    controller(2);
    NVMC_ERASE_PAGE = FLASH_ORIGIN + at;
    controller(0);
}

void port_write(uint32_t at, const uint8_t *data, uint32_t count) {
    controller(1);
    for (uint32_t i = 0; i < count; i += 4) {
        const uint32_t word = data[i] | (uint32_t)data[i + 1] << 8 | (uint32_t)data[i + 2] << 16 | (uint32_t)data[i + 3] << 24;
        REGISTER((uint32_t)code + at + i) = word;
        while (NVMC_READY == 0) {}
    }
    controller(0);
}
