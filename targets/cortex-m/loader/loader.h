/* The loader: takes a firmware over the UART, and starts it only when all of it is there.
 *
 * Flash: the loader's code, two pages of versions, the record in the last page of LOADER_BYTES, the application behind.
 *
 * A frame is 00, COBS(type, sequence, body, CRC-32), 00. COBS keeps zeros out of a frame, so that one zero is enough to
 * find the next frame after any loss; the zero in front ends what was lost before. The CRC-32 is zlib's, of everything
 * before it; numbers are little-endian; offsets are bytes from the application's origin.
 * The host sends one request and waits. An answer has the request's type + 0x80, its sequence number, and a status in
 * front of its body. A host that hears nothing, or BROKEN, sends the same bytes again: each request may be done twice.
 *
 *   request  body                                 body of the answer
 *   HELLO    -                                    see `hello`; also keeps the loader from starting the application
 *   SUMS     block u32, count u16                 CRC-32 of each of these blocks, as flash holds them
 *   ERASE    offset u32, length u32 (of pages)    -   pages that are blank already are left alone
 *   WRITE    offset u32, bytes (of words)         -   what is there already is not written again
 *   READ     offset u32, length u32               the bytes
 *   SUM      offset u32, length u32               CRC-32 u32
 *   COMMIT   size u32, crc u32, proof             -   writes the record, when flash has that sum
 *   BOOT     -                                    -   starts the application after the answer
 *
 * hello: version u8, state u8 (1: an application is committed and its sum fits; 2: it asks for a proof), block u16, page u32, origin u32 (address),
 * room u32, RAM's address u32 and bytes u32, size u32 and CRC-32 u32 of the application (0 when not whole), where it asks
 * for a proof the greatest version u32, board's name.
 *
 * The proof: with a key built in (LOADER_KEYED), version u32 and a tag of 32 bytes, which is BLAKE2s with that key over
 * "edgesdk firmware", size u32, version u32, zeros up to 64 bytes, and the application; otherwise nothing. The greatest
 * version that was committed stays in flash, in turns in two pages before the record's, and an older one is refused.
 *
 * The record (magic, size, CRC-32, CRC-32 of these) is erased before the first change of the application and written
 * after everything was compared, so that a half-written application is never started. At reset the loader prints one
 * line as the runner does, {"event":"loader",...}*CRC, and waits LOADER_WINDOW_MS for a frame before it starts an
 * application that is whole. It stays when there is none, or when the application left STAY in the first words of RAM.
 */
#ifndef LOADER_H
#define LOADER_H

#include <stdint.h>

#define LOADER_VERSION 1
#define LOADER_BYTES 16384u
#define LOADER_WINDOW_MS 500
#define LOADER_STAY 0x79617473u /* the first word of RAM; its complement is the second */
#define LOADER_FLAG_BYTES 8u

enum { HELLO = 1, SUMS, ERASE, WRITE, READ, SUM, COMMIT, BOOT, ANSWER = 0x80 };
enum {
    OK,
    BAD_REQUEST, /* unknown, or of a wrong size */
    OUTSIDE,     /* of the application's flash, or not at a page or word */
    NOT_ERASED,  /* flash cannot take these bytes before an erase */
    FLASH_FAILED,
    WRONG_SUM,   /* flash does not hold what the host says */
    NOT_AN_APP,  /* its stack is not in RAM, or its start not in its flash */
    NO_APP,
    BROKEN,      /* a frame whose checksum does not fit; its answer has sequence number 0 */
    WRONG_TAG,   /* not made with the loader's key, for this application and version */
    TOO_OLD      /* than one that was committed before */
};

/* One byte from the UART. Returns 1 when the application is to be started now. */
int loader_byte(uint8_t byte);

/* Whether a frame for this loader has come since reset: then it stays. */
int loader_called(void);

/* Whether the record is there and the application's sum fits. */
int loader_whole(void);

/* Print the line that says who is here, and why. */
void loader_announce(const char *why);

#endif
