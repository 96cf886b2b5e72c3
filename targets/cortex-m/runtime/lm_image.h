/* The image's layout: little-endian, every offset from its first byte and a multiple of 4 (matrices: 16). */
#ifndef LM_IMAGE_H
#define LM_IMAGE_H

#include <stdint.h>

#define LM_MAGIC 0x314D4C45u /* "ELM1" */
#define LM_VERSION 1u

enum { LM_LAYER_NORM = 1, LM_POSITIONS = 2 };                /* header flags */
enum { LM_GATED = 1, LM_QK_NORM = 2, LM_POST_NORMS = 4 };    /* layer flags */
enum { LM_SILU = 0, LM_GELU = 1, LM_GELU_TANH = 2, LM_RELU = 3 };
enum { LM_BFLOAT16 = 0, LM_FLOAT32 = 1 };                    /* types of scales */

typedef struct {
    uint32_t rows, columns;
    uint32_t bits;       /* 8 or 4; 0: there is no such matrix */
    uint32_t group;      /* inputs that share a scale: all of them for 8 bits */
    uint32_t scale_type;
    uint32_t values;     /* offset: int8 [rows][columns], or pairs of 4 bits plus 8, first in the low half */
    uint32_t scales;     /* offset: [rows][columns / group] */
    uint32_t bias;       /* offset: float32 [rows], or 0 */
} lm_matrix;

struct lm_layer {
    uint32_t heads, kv_heads, head_dim;
    uint32_t capacity;     /* positions in the cache */
    uint32_t sinks;        /* first positions that a full ring keeps */
    uint32_t rope;         /* offset into the rotary buffer's floats plus 1, or 0 */
    uint32_t activation, flags;
    float scale, softcap;  /* of scores; no cap: 0 */
    uint32_t attn_norm, q_norm, k_norm, post_attn_norm, mlp_norm, post_mlp_norm; /* offsets: weight, then bias */
    lm_matrix q, k, v, o, gate, up, down;
};

struct lm_header {
    uint32_t magic, version, size, crc; /* CRC-32 of all bytes after it */
    uint32_t vocab, hidden, context, layer_count;
    uint32_t flags;
    uint32_t ram;                 /* bytes */
    uint32_t scratch;             /* floats */
    uint32_t widest, most_groups; /* longest input of a matrix; most groups of a 4-bit row */
    uint32_t may_slide;           /* 1: positions are rotary, so a full context can slide */
    uint32_t rotations;           /* frequencies in all rotary tables */
    uint32_t frequencies;         /* offset: turns a position * 2^32, uint32 [rotations] */
    uint32_t layers;              /* offset: struct lm_layer [layer_count] */
    uint32_t final_norm;          /* offset */
    uint32_t positions;           /* offset: float32 [context][hidden], or 0 */
    uint32_t tokenizer, tokenizer_size;
    float norm_eps, embedding_scale, logit_softcap;
    lm_matrix embed, head;
};

#endif
