/* Lines with a checksum: `text*XXXXXXXX`, the CRC-32 of the text in hexadecimal. */
#ifndef LINE_H
#define LINE_H

#include <stddef.h>
#include <stdint.h>

/* Print pieces of a line; line_end adds the checksum. Nothing is kept in memory. */
void line_text(const char *text);
void line_bytes(const char *bytes, size_t count); /* inside a JSON string: escaped */
void line_number(uint64_t number);
void line_hex(uint32_t number);
void line_end(void);

typedef enum { LINE_NONE, LINE_GOOD, LINE_BROKEN, LINE_LONG } line_state;

/* Collect what the UART has received. LINE_GOOD: a whole line is in `line`, without its checksum, zero-terminated. */
line_state line_poll(char *line, size_t capacity, size_t *length);

#endif
