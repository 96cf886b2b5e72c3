/* What the loader asks of a board. A port is one file, ports/<port>.c.
 * CMake gives FLASH_ORIGIN, FLASH_BYTES, RAM_ORIGIN, RAM_BYTES, PAGE_BYTES (one erase), BLOCK_BYTES (most bytes a frame
 * carries) and BOARD_NAME. Flash is addressed in bytes from FLASH_ORIGIN. */
#ifndef PORT_H
#define PORT_H

#include <stdint.h>

void port_init(void);
void port_put(uint8_t byte); /* to the UART; waits for room */
int port_get(void);          /* from the UART: a byte, or -1 when none is there */
int port_window_over(void);  /* whether LOADER_WINDOW_MS have passed since port_init */

const uint8_t *port_flash(void);                                  /* to read from; memory-mapped */
void port_erase(uint32_t at);                                     /* one page, to FF */
void port_write(uint32_t at, const uint8_t *data, uint32_t count); /* words; can only clear bits */

#endif
