/*
 * Text to token ids and back, on the device: BPE over a table that edgesdk makes from a model's tokenizer.json
 * (tokenizer_table.py beside the converter). C99, no heap, no state but the caller's; the table is read where it lies.
 *
 * The ids are those of the tokenizer that the model was trained with, special tokens written in the text included.
 */
#ifndef LM_TOKENIZER_H
#define LM_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a call returns. */
enum lm_tokenizer_status {
    LM_TOKENIZER_OK = 0,
    LM_TOKENIZER_BAD_TABLE = 1,    /* no table, of another version, damaged, or not 4-byte aligned */
    LM_TOKENIZER_BAD_TEXT = 2,     /* not valid UTF-8 (nor surrogates, overlong forms), or a token the model lacks */
    LM_TOKENIZER_IDS_FULL = 3,     /* the ids do not fit into the caller's buffer */
    LM_TOKENIZER_SCRATCH_FULL = 4, /* a word does not fit into the caller's scratch memory */
    LM_TOKENIZER_OUTPUT_FULL = 5   /* decoded bytes do not fit into the caller's buffer */
};

/* An open table. */
typedef struct lm_tokenizer {
    const uint8_t *table;
} lm_tokenizer;

/*
 * Where ids go. Encoding appends: set `count` to 0 first, or keep what is there. A call that fails leaves `count` as it
 * was. `scratch` holds the word in work, two entries for each of its bytes.
 */
typedef struct lm_ids {
    uint32_t *ids;
    size_t capacity; /* entries in `ids` */
    size_t count;    /* entries used */
    uint32_t *scratch;
    size_t scratch_capacity; /* entries in `scratch` */
} lm_ids;

/* Scratch entries that are enough for every text of `bytes` bytes; texts of ordinary words need far less. */
#define LM_TOKENIZER_SCRATCH(bytes) (2u * ((size_t)(bytes) + 3u))

/* A text in the making: the bytes of a character that is not whole yet. */
typedef struct lm_decoder {
    uint8_t held[4];
    uint8_t held_count;
    uint8_t strip;  /* leading spaces that are still to be dropped */
    uint8_t first;  /* no token has been decoded yet */
    uint8_t broken; /* the current run of byte tokens held a broken character */
} lm_decoder;

/* Open `size` bytes at `table`, which must stay and be 4-byte aligned. Returns OK or BAD_TABLE. */
int lm_tokenizer_open(lm_tokenizer *tokenizer, const void *table, size_t size);

/* One more than the largest id. */
uint32_t lm_tokenizer_size(const lm_tokenizer *tokenizer);

/* Whether an answer ends with this id. */
int lm_tokenizer_is_stop(const lm_tokenizer *tokenizer, uint32_t id);

/* Append what the model wants in front of a text (a BOS, or nothing). Returns OK, IDS_FULL or BAD_TABLE. */
int lm_tokenizer_prefix(const lm_tokenizer *tokenizer, lm_ids *out);

/*
 * Append the ids of `length` bytes of UTF-8. Returns OK, BAD_TEXT, IDS_FULL, SCRATCH_FULL or BAD_TABLE. The time grows
 * with the text, and with the square of its longest word (of the text itself where tokens reach over spaces).
 */
int lm_tokenizer_encode(const lm_tokenizer *tokenizer, const char *text, size_t length, lm_ids *out);

/* Bytes that are enough for what one token decodes to. */
size_t lm_tokenizer_most_bytes(const lm_tokenizer *tokenizer);

/* Start a text. */
void lm_decoder_start(const lm_tokenizer *tokenizer, lm_decoder *decoder);

/*
 * The bytes that one more token adds to the text: whole UTF-8 characters only, without a terminating zero, none for
 * special tokens and for ids without a token. Broken characters become U+FFFD as in the `tokenizers` library, but that
 * with byte fallback the library replaces a whole run of byte tokens when any part of it is broken; here characters
 * that were whole before the break stay. Returns OK with `*length` set, or OUTPUT_FULL with the decoder as it was.
 */
int lm_decoder_token(
    const lm_tokenizer *tokenizer, lm_decoder *decoder, uint32_t id, char *out, size_t capacity, size_t *length);

/* The end of a text: a character that never became whole, as U+FFFD. Returns as lm_decoder_token. */
int lm_decoder_end(const lm_tokenizer *tokenizer, lm_decoder *decoder, char *out, size_t capacity, size_t *length);

#ifdef __cplusplus
}
#endif
#endif
