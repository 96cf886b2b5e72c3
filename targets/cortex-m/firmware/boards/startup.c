/* Reset and vectors of a Cortex-M core. */
#include <stdint.h>

extern uint32_t _stack_top, _data_load, _data_start, _data_end, _bss_start, _bss_end;
extern void (*const _init_start[])(void), (*const _init_end[])(void); /* constructors, where there is C++ */
int main(void);
void systick_handler(void);

static void halt(void) {
    for (;;) {}
}

void reset_handler(void) {
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
