/* What the runner asks of a board. A port is one file, boards/<port>.c. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

void board_init(void);
void board_put(char character);          /* to the UART; waits for room */
int board_get(void);                     /* from the UART: a byte, or -1 when none is there */
uint64_t board_ticks(void);              /* of a clock that never stops */
uint32_t board_ticks_per_second(void);
uint32_t board_stack_used(void);         /* the most bytes of stack in use so far, or 0 where it is not known */
void board_alive(void);                  /* called between slices of work: feed a watchdog here */
#ifdef LOADER_FLAG
void board_to_loader(void);              /* reset, and stay in the loader that is in front of this firmware */
#endif

#endif
