/* Reset, vectors and the stack of a Cortex-M core. */
#include "../board.h"
#ifdef LOADER_FLAG
#include "../../loader/loader.h"
#endif

#define UNUSED 0xC5C5C5C5u /* what a stack that was never reached holds */

extern uint32_t _stack_bottom, _stack_top, _data_load, _data_start, _data_end, _bss_start, _bss_end;
extern void (*const _init_start[])(void), (*const _init_end[])(void); /* constructors, where there is C++ */
int main(void);
void systick_handler(void);

static void halt(void) {
    for (;;) {}
}

uint32_t board_stack_used(void) {
    const uint32_t *reached = &_stack_bottom;
    while (reached < &_stack_top && *reached == UNUSED) reached++;
    return (uint32_t)((const uint8_t *)&_stack_top - (const uint8_t *)reached);
}

#ifdef LOADER_FLAG
void board_to_loader(void) {
    volatile uint32_t *flag = (volatile uint32_t *)LOADER_FLAG; /* the first words of RAM: no startup clears them */
    flag[0] = LOADER_STAY;
    flag[1] = ~LOADER_STAY;
    __asm volatile("dsb" : : : "memory");
    *(volatile uint32_t *)0xE000ED0C = 0x05FA0004; /* AIRCR: reset */
    halt();
}
#endif

void reset_handler(void) {
    volatile uint32_t *here;
    __asm volatile("mov %0, sp" : "=r"(here));
    for (volatile uint32_t *to = &_stack_bottom; to < here; to++) *to = UNUSED;
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: floating point and MVE on */
    __asm volatile("dsb\n isb");
#endif
    for (uint32_t *to = &_data_start, *from = &_data_load; to < &_data_end;) *to++ = *from++;
    for (uint32_t *to = &_bss_start; to < &_bss_end;) *to++ = 0;
    for (void (*const *init)(void) = _init_start; init < _init_end; init++) (*init)();
    main();
    halt();
}

__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {
    (void (*)(void))&_stack_top, reset_handler, halt, halt, halt, halt, halt, halt, 0, 0, 0, halt, halt, 0, halt,
    systick_handler,
};
