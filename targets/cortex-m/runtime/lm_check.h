/* Whether an image is what it says: every offset inside of it, every shape the one that its neighbours need. Once it is,
 * no step reads or writes outside of the image and of the RAM that lm_ram_bytes counts. */
#ifndef LM_CHECK_H
#define LM_CHECK_H

#include "lm_image.h"

#define LM_MOST 0x1000000u /* of any count of an image, so that products of three fit into 64 bits and RAM can be counted */

typedef struct {
    const struct lm_header *header;
    const uint8_t *image;
} lm_checked;

/* `count` things of `bytes` bytes each lie at an offset, at a multiple of 4. */
static int lm_inside(const lm_checked *in, uint32_t offset, uint64_t count, uint64_t bytes) {
    const uint64_t size = in->header->size;
    return !(offset & 3) && offset >= sizeof *in->header && offset <= size && count <= (size - offset) / bytes;
}

static int lm_counted(uint32_t count) { return count > 0 && count <= LM_MOST; }

static int lm_matrix_fits(const lm_checked *in, const lm_matrix *matrix, uint32_t rows, uint32_t columns) {
    const struct lm_header *header = in->header;
    if (matrix->rows != rows || matrix->columns != columns || columns > header->widest) return 0;
    if (matrix->bits != 8 && matrix->bits != 4) return 0;
    if (!matrix->group || columns % matrix->group || matrix->scale_type > LM_FLOAT32) return 0;
    const uint64_t groups = columns / matrix->group, cells = (uint64_t)rows * columns;
    if (matrix->bits == 8 && groups != 1) return 0;
    if (matrix->bits == 4 && ((matrix->group & 1) || groups > header->most_groups)) return 0;
    if (matrix->bias && !lm_inside(in, matrix->bias, rows, 4)) return 0;
    return lm_inside(in, matrix->values, matrix->bits == 8 ? cells : cells / 2, 1)
           && lm_inside(in, matrix->scales, rows * groups, matrix->scale_type == LM_BFLOAT16 ? 2 : 4);
}

static int lm_norm_fits(const lm_checked *in, uint32_t offset) {
    return lm_inside(in, offset, (uint64_t)in->header->hidden * (in->header->flags & LM_LAYER_NORM ? 2 : 1), 4);
}

static int lm_attention_fits(const lm_checked *in, const struct lm_layer *layer) {
    const struct lm_header *header = in->header;
    const uint32_t size = layer->head_dim;
    if (!lm_counted(layer->heads) || !lm_counted(layer->kv_heads) || !lm_counted(size)) return 0;
    const uint64_t q = (uint64_t)layer->heads * size, kv = (uint64_t)layer->kv_heads * size;
    if (q > LM_MOST || kv > LM_MOST || layer->heads % layer->kv_heads) return 0;
    if (!lm_counted(layer->capacity) || layer->capacity > header->context || layer->sinks >= layer->capacity) return 0;
    if (q + 2 * kv + size + layer->capacity > header->scratch || size > header->widest) return 0;
    if (layer->rope && (layer->rope - 1 > header->rotations || size / 2 > header->rotations - (layer->rope - 1))) return 0;
    if (layer->flags & LM_QK_NORM && !(lm_inside(in, layer->q_norm, size, 4) && lm_inside(in, layer->k_norm, size, 4)))
        return 0;
    return lm_norm_fits(in, layer->attn_norm)
           && (!(layer->flags & LM_POST_NORMS) || lm_norm_fits(in, layer->post_attn_norm))
           && lm_matrix_fits(in, &layer->q, (uint32_t)q, header->hidden)
           && lm_matrix_fits(in, &layer->k, (uint32_t)kv, header->hidden)
           && lm_matrix_fits(in, &layer->v, (uint32_t)kv, header->hidden)
           && lm_matrix_fits(in, &layer->o, header->hidden, (uint32_t)q);
}

static int lm_layer_fits(const lm_checked *in, const struct lm_layer *layer) {
    const struct lm_header *header = in->header;
    const uint32_t inner = layer->up.rows, gated = layer->flags & LM_GATED;
    return lm_attention_fits(in, layer) && lm_counted(inner) && layer->activation <= LM_RELU
           && (uint64_t)inner * (gated ? 2 : 1) <= header->scratch && lm_norm_fits(in, layer->mlp_norm)
           && (!(layer->flags & LM_POST_NORMS) || lm_norm_fits(in, layer->post_mlp_norm))
           && lm_matrix_fits(in, &layer->up, inner, header->hidden)
           && (!gated || lm_matrix_fits(in, &layer->gate, inner, header->hidden))
           && lm_matrix_fits(in, &layer->down, header->hidden, inner);
}

/* The image is aligned, and as long as its header says. */
static int lm_image_fits(const uint8_t *image) {
    const struct lm_header *header = (const struct lm_header *)(const void *)image;
    const lm_checked in = {header, image};
    if (!lm_counted(header->vocab) || !lm_counted(header->hidden) || !lm_counted(header->context)) return 0;
    if (!lm_counted(header->layer_count) || !lm_counted(header->scratch) || !lm_counted(header->widest)) return 0;
    if (header->vocab > header->scratch || header->hidden > header->widest) return 0;
    if (header->most_groups > LM_MOST || header->rotations > LM_MOST) return 0;
    if (!lm_inside(&in, header->layers, header->layer_count, sizeof(struct lm_layer))) return 0;
    if (header->rotations && !lm_inside(&in, header->frequencies, header->rotations, 4)) return 0;
    if (header->flags & LM_POSITIONS && !lm_inside(&in, header->positions, (uint64_t)header->context * header->hidden, 4))
        return 0;
    if (header->tokenizer_size && !lm_inside(&in, header->tokenizer, header->tokenizer_size, 1)) return 0;
    const struct lm_layer *layers = (const struct lm_layer *)(const void *)(image + header->layers);
    for (uint32_t i = 0; i < header->layer_count; i++)
        if (!lm_layer_fits(&in, &layers[i])) return 0;
    return lm_norm_fits(&in, header->final_norm) && lm_matrix_fits(&in, &header->embed, header->vocab, header->hidden)
           && lm_matrix_fits(&in, &header->head, header->vocab, header->hidden);
}

#endif
