/* edgesdk: a small language model on a microcontroller. C99; no malloc, no libc but memcpy, memset and sqrtf.
 *
 * The image (written by edgesdk, format in lm_image.h) is read in place: a constant array or memory-mapped flash.
 * Weights are int8 with a scale a row, or 4 bits with a scale a group; activations become int8 for every matrix, with
 * one scale a vector; keys and values are kept as int8 with one scale a token. Everything else is float32.
 * edgesdk's Python double of this arithmetic gives the same logits, bit for bit.
 */
#ifndef LM_H
#define LM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    LM_OK = 0,
    LM_BAD_IMAGE = 1,   /* no image, cut short, or of another version */
    LM_BAD_CRC = 2,     /* the image was changed since it was written */
    LM_NO_MEMORY = 3,   /* less RAM than the image asks for */
    LM_BAD_TOKEN = 4,   /* a token outside the vocabulary */
    LM_FULL = 5,        /* the context is full and does not slide */
    LM_FAILED = 6       /* the runtime failed (TensorFlow Lite Micro; the C99 runtime never does) */
} lm_status;

struct lm_header;
struct lm_layer;

/* One layer's keys and values, oldest overwritten first where the layer is a ring. */
typedef struct {
    int8_t *keys;          /* [capacity][kv_size] */
    int8_t *values;        /* [kv_size][capacity] */
    uint16_t *key_scales;  /* [capacity], bfloat16 */
    uint16_t *value_scales;
} lm_cache;

/* An int8 vector as the kernels want it, and what the 4-bit kernels need beside it. */
typedef struct {
    void *values;
    int32_t *sums; /* of each group of 4-bit weights */
    float scale;
} lm_vector;

typedef struct {
    const uint8_t *image;
    const struct lm_header *header;
    const struct lm_layer *layers;
    lm_cache *caches;
    float *x;       /* residual stream, [hidden] */
    float *normed;  /* input of a block, or what it gave, [hidden] */
    float *rotary;  /* cosines and sines of this position, and of the one that sinks see */
    float *scratch; /* buffers of one block, or the logits */
    lm_vector vector;
    uint32_t position; /* tokens so far */
    uint32_t stage;    /* of the token that is being worked on */
    uint32_t stages;
    int slides; /* set it after lm_open: a full context then keeps its first tokens and the latest (arXiv 2309.17453) */
} lm_model;

/* Check the image (16-byte aligned) and lay out RAM (8-byte aligned, at least lm_ram_bytes(image)). */
lm_status lm_open(lm_model *model, const void *image, size_t size, void *ram, size_t ram_size);

/* Bytes of RAM that an image needs on this computer; 0 when it is no image. */
size_t lm_ram_bytes(const void *image);

/* Forget all tokens. */
void lm_reset(lm_model *model);

/* Begin with the next token. With `want_logits` 0 the head is left out, as for all but the last token of a prompt. */
lm_status lm_begin(lm_model *model, uint32_t token, int want_logits);

/* One slice of the work (half a layer, or the head): 1 while there is more to do. Feed a watchdog between slices. */
int lm_advance(lm_model *model);

/* Logits after the last token, [vocab]; valid until the next lm_begin. */
float *lm_logits(lm_model *model);

/* All of it in one call. */
lm_status lm_step(lm_model *model, uint32_t token, int want_logits);

/* Sampling. Temperature 0 takes the best token; top_p in (0, 1] keeps the likeliest ones that sum to it. */
typedef struct {
    float temperature;
    float top_p;
    uint32_t state; /* of the random numbers (xorshift32); not 0 */
} lm_sampler;

/* The next token from the logits, which become probabilities when the temperature is above 0. */
uint32_t lm_sample(lm_sampler *sampler, float *logits, uint32_t vocab);

/* CRC-32 (IEEE 802.3, as zlib's) of bytes; begin with crc 0. */
uint32_t lm_crc32(uint32_t crc, const void *data, size_t size);

#ifdef __cplusplus
}
#endif
#endif
