/* Reset of the loader on a Cortex-M core, and the way into the application. It uses no interrupts. */
#include "loader.h"
#include "port.h"

#define APP (FLASH_ORIGIN + LOADER_BYTES)

extern uint32_t _stack_top, _data_load, _data_start, _data_end, _bss_start, _bss_end;

static void halt(void) {
    for (;;) {}
}

/* The application's own stack and vectors, as after a reset. */
static void start_application(void) {
    const uint32_t *vectors = (const uint32_t *)APP;
#ifndef __ARM_ARCH_6M__
    *(volatile uint32_t *)0xE000ED08 = APP; /* VTOR */
#endif
    __asm volatile("dsb\n isb\n msr msp, %0\n bx %1" : : "r"(vectors[0]), "r"(vectors[1]) : "memory");
    halt();
}

/* Whether the application asked to come here; forgets it. */
static int asked_to_stay(void) {
    volatile uint32_t *flag = (volatile uint32_t *)RAM_ORIGIN;
    const int asked = flag[0] == LOADER_STAY && flag[1] == ~LOADER_STAY;
    flag[0] = flag[1] = 0;
    return asked;
}

void reset_handler(void) {
    for (uint32_t *to = &_data_start, *from = &_data_load; to < &_data_end;) *to++ = *from++;
    for (uint32_t *to = &_bss_start; to < &_bss_end;) *to++ = 0;
    const int asked = asked_to_stay(), whole = loader_whole();
    port_init();
    loader_announce(asked ? "asked" : whole ? "window" : "empty");
    for (;;) {
        const int byte = port_get();
        if (byte >= 0 && loader_byte((uint8_t)byte)) break;
        if (byte < 0 && whole && !asked && !loader_called() && port_window_over()) break;
    }
    start_application();
}

#ifdef __ARM_ARCH_6M__
/* Cores without VTOR take every exception through the loader's table: hand it on to the application's. */
__attribute__((naked)) static void forward(void) {
    __asm volatile(".syntax unified\n mrs r0, ipsr\n lsls r0, r0, #2\n ldr r1, =%c0\n ldr r0, [r0, r1]\n bx r0\n .ltorg" : : "i"(APP));
}
#define OTHER forward
#else
#define OTHER halt
#endif
#define FOUR OTHER, OTHER, OTHER, OTHER

__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {
    (void (*)(void))&_stack_top, reset_handler, OTHER, OTHER, FOUR, FOUR, FOUR, FOUR, FOUR, FOUR, FOUR, FOUR,
    FOUR, FOUR, FOUR,
};
