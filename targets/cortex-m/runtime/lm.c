/* The decoder: one token at a time, in slices. See lm.h. */
#include "lm.h"

#include <math.h>
#include <string.h>

#include "lm_check.h"
#include "lm_image.h"
#include "lm_kernels.h"
#include "lm_vectors.h"

/* --- the image and the layout of RAM ----------------------------------------------------------------------------- */

static const void *at(const lm_model *model, uint32_t offset) { return model->image + offset; }

static size_t aligned(size_t bytes) { return (bytes + 7) & ~(size_t)7; }

static uint32_t kv_size(const struct lm_layer *layer) { return layer->kv_heads * layer->head_dim; }

static size_t cache_bytes(const struct lm_layer *layer) {
    return 2 * aligned((size_t)layer->capacity * kv_size(layer)) + 2 * aligned((size_t)layer->capacity * 2);
}

static size_t needed_bytes(const struct lm_header *header, const struct lm_layer *layers) {
    size_t total = aligned(header->layer_count * sizeof(lm_cache)) + 2 * aligned(header->hidden * sizeof(float));
    total += aligned(4 * header->rotations * sizeof(float)) + aligned(header->scratch * sizeof(float));
    total += aligned(header->widest * sizeof(int16_t)) + aligned(header->most_groups * sizeof(int32_t));
    for (uint32_t i = 0; i < header->layer_count; i++) total += cache_bytes(&layers[i]);
    return total;
}

size_t lm_ram_bytes(const void *image) {
    const struct lm_header *header = image;
    if (header->magic != LM_MAGIC || header->version != LM_VERSION) return 0;
    return needed_bytes(header, (const struct lm_layer *)(const void *)((const uint8_t *)image + header->layers));
}

static void *take(uint8_t **free, size_t bytes) {
    void *start = *free;
    *free += aligned(bytes);
    return start;
}

lm_status lm_open(lm_model *model, const void *image, size_t size, void *ram, size_t ram_size) {
    const struct lm_header *header = image;
    const size_t checked = offsetof(struct lm_header, vocab);
    memset(model, 0, sizeof *model);
    if (((uintptr_t)image & 3) || size < sizeof *header || header->magic != LM_MAGIC || header->version != LM_VERSION || header->size > size
        || header->size < sizeof *header)
        return LM_BAD_IMAGE;
    if (lm_crc32(0, (const uint8_t *)image + checked, header->size - checked) != header->crc) return LM_BAD_CRC;
    if (!lm_image_fits(image)) return LM_BAD_IMAGE;
    if (lm_ram_bytes(image) > ram_size || ((uintptr_t)ram & 7)) return LM_NO_MEMORY;
    model->image = image;
    model->header = header;
    model->layers = at(model, header->layers);
    uint8_t *free = ram;
    model->caches = take(&free, header->layer_count * sizeof(lm_cache));
    model->x = take(&free, header->hidden * sizeof(float));
    model->normed = take(&free, header->hidden * sizeof(float));
    model->rotary = take(&free, 4 * header->rotations * sizeof(float));
    model->scratch = take(&free, header->scratch * sizeof(float));
    model->vector.values = take(&free, header->widest * sizeof(int16_t));
    model->vector.sums = take(&free, header->most_groups * sizeof(int32_t));
    for (uint32_t i = 0; i < header->layer_count; i++) {
        const struct lm_layer *layer = &model->layers[i];
        lm_cache *cache = &model->caches[i];
        cache->keys = take(&free, (size_t)layer->capacity * kv_size(layer));
        cache->values = take(&free, (size_t)layer->capacity * kv_size(layer));
        cache->key_scales = take(&free, (size_t)layer->capacity * 2);
        cache->value_scales = take(&free, (size_t)layer->capacity * 2);
    }
    lm_reset(model);
    return LM_OK;
}

void lm_reset(lm_model *model) { model->position = model->stage = model->stages = 0; }

/* --- vectors ------------------------------------------------------------------------------------------------------ */

/* y = norm(x) of n elements; the weight, and for a layer norm the bias after it, lie at `weight`. */
static void norm(const float *x, const float *weight, uint32_t n, int centred, float eps, float *y) {
    float lanes[4] = {0}, mean = 0.0f;
    if (centred) {
        for (uint32_t i = 0; i < n; i++) lanes[i & 3] += x[i];
        mean = lm_lanes_sum(lanes) / (float)n;
        memset(lanes, 0, sizeof lanes);
    }
    for (uint32_t i = 0; i < n; i++) {
        y[i] = x[i] - mean;
        lanes[i & 3] += y[i] * y[i];
    }
    float factor = 1.0f / sqrtf(lm_lanes_sum(lanes) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++) y[i] = (y[i] * factor) * weight[i];
    if (centred)
        for (uint32_t i = 0; i < n; i++) y[i] += weight[n + i];
}

static void norm_at(const lm_model *model, const float *x, uint32_t offset, float *y) {
    const struct lm_header *header = model->header;
    norm(x, at(model, offset), header->hidden, header->flags & LM_LAYER_NORM, header->norm_eps, y);
}

/* x as int8 with one scale, in the order of the kernel for `matrix`. */
static void quantize(lm_vector *vector, const float *x, const lm_matrix *matrix) {
    const uint32_t n = matrix->columns;
    const float peak = lm_largest(x, n), inverse = peak > 0.0f ? 127.0f / peak : 0.0f;
    lm_x *values = vector->values;
    vector->scale = peak / 127.0f;
    if (matrix->bits == 8) {
        lm_quantize8(x, n, inverse, values);
        return;
    }
    for (uint32_t g = 0, i = 0; i < n; g++) {
        int32_t sum = 0;
        for (uint32_t end = i + matrix->group; i < end; i++) {
            int32_t value = lm_round(x[i] * inverse);
            values[i - i % matrix->group + lm_place4(i % matrix->group, matrix->group)] = (lm_x)value;
            sum += value;
        }
        vector->sums[g] = 8 * sum;
    }
}

static float scale_of(const lm_model *model, const lm_matrix *matrix, uint32_t index) {
    if (matrix->scale_type == LM_BFLOAT16) return lm_bfloat16(((const uint16_t *)at(model, matrix->scales))[index]);
    return ((const float *)at(model, matrix->scales))[index];
}

/* y = matrix x for 8-bit rows, and for rows of 4 bits in groups; x is the model's vector. */
static void rows8(const lm_model *model, const lm_matrix *matrix, float *y) {
    const int8_t *values = at(model, matrix->values);
    const lm_vector *vector = &model->vector;
    const uint32_t columns = matrix->columns, rows = matrix->rows;
    int32_t acc[4];
    for (uint32_t row = 0; row < rows; row += 4) {
        const int8_t *start = values + (size_t)row * columns;
        uint32_t count = rows - row < 4 ? rows - row : 4;
        if (count == 4) lm_dot8x4(start, columns, vector->values, columns, acc);
        else
            for (uint32_t r = 0; r < count; r++) acc[r] = lm_dot8(start + (size_t)r * columns, vector->values, columns);
        for (uint32_t r = 0; r < count; r++) y[row + r] = (float)acc[r] * (scale_of(model, matrix, row + r) * vector->scale);
    }
}

static void rows4(const lm_model *model, const lm_matrix *matrix, float *y) {
    const uint8_t *values = at(model, matrix->values);
    const lm_vector *vector = &model->vector;
    const uint32_t group = matrix->group, groups = matrix->columns / group, stride = matrix->columns / 2;
    const lm_x *x = vector->values;
    int32_t acc[4];
    for (uint32_t row = 0; row < matrix->rows; row += 4) {
        float total[4] = {0};
        uint32_t count = matrix->rows - row < 4 ? matrix->rows - row : 4;
        for (uint32_t g = 0; g < groups; g++) {
            const uint8_t *start = values + (size_t)row * stride + g * group / 2;
            if (count == 4) lm_dot4x4(start, stride, x + g * group, group, acc);
            else
                for (uint32_t r = 0; r < count; r++) acc[r] = lm_dot4(start + (size_t)r * stride, x + g * group, group);
            for (uint32_t r = 0; r < count; r++)
                total[r] += (float)(acc[r] - vector->sums[g]) * scale_of(model, matrix, (row + r) * groups + g);
        }
        for (uint32_t r = 0; r < count; r++) y[row + r] = total[r] * vector->scale;
    }
}

/* y = matrix x + bias. With `again`, x is the vector of the last call, and `again` the matrix of that call. */
static void multiply(lm_model *model, const lm_matrix *matrix, const float *x, float *y, const lm_matrix *again) {
    if (!again || again->bits != matrix->bits || again->group != matrix->group) quantize(&model->vector, x, matrix);
    if (matrix->bits == 8) rows8(model, matrix, y);
    else rows4(model, matrix, y);
    if (matrix->bias) {
        const float *bias = at(model, matrix->bias);
        for (uint32_t i = 0; i < matrix->rows; i++) y[i] += bias[i];
    }
}

/* Row `token` of the embedding. */
static void embed(const lm_model *model, uint32_t token) {
    const struct lm_header *header = model->header;
    const lm_matrix *matrix = &header->embed;
    const uint32_t columns = matrix->columns, groups = columns / matrix->group;
    const uint8_t *row = (const uint8_t *)at(model, matrix->values) + (size_t)token * columns * matrix->bits / 8;
    for (uint32_t i = 0; i < columns; i++) {
        int32_t value = matrix->bits == 8 ? ((const int8_t *)row)[i] : (i & 1 ? row[i / 2] >> 4 : row[i / 2] & 15) - 8;
        model->x[i] = ((float)value * scale_of(model, matrix, token * groups + i / matrix->group))
                      * header->embedding_scale;
    }
    if (header->flags & LM_POSITIONS) {
        const float *position = (const float *)at(model, header->positions) + (size_t)model->position * columns;
        for (uint32_t i = 0; i < columns; i++) model->x[i] += position[i];
    }
}

/* --- attention ---------------------------------------------------------------------------------------------------- */

static uint32_t minimum(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Cosines and sines of this position, then of the one that the first tokens see once the context slides. */
static void rotary(lm_model *model) {
    const struct lm_header *header = model->header;
    const uint32_t *frequencies = at(model, header->frequencies), count = header->rotations;
    const uint32_t seen = minimum(model->position, header->context - 1);
    for (uint32_t i = 0; i < count; i++) {
        float *now = model->rotary + 2 * i, *sink = now + 2 * count;
        lm_cos_sin(frequencies[i] * model->position, &now[0], &now[1]);
        lm_cos_sin(frequencies[i] * seen, &sink[0], &sink[1]);
    }
}

static void rotate(float *head, uint32_t size, const float *turns) {
    for (uint32_t i = 0, half = size / 2; i < half; i++) {
        float a = head[i], b = head[half + i], cosine = turns[2 * i], sine = turns[2 * i + 1];
        head[i] = a * cosine - b * sine;
        head[half + i] = b * cosine + a * sine;
    }
}

/* Where this position goes: behind the sinks, a ring overwrites its oldest entry. */
static uint32_t slot_of(const struct lm_layer *layer, uint32_t position) {
    if (position < layer->capacity) return position;
    return layer->sinks + (position - layer->sinks) % (layer->capacity - layer->sinks);
}

/* One token's keys or values as int8, `step` bytes apart; returns their scale, rounded up to bfloat16. */
static uint16_t store(const float *x, uint32_t n, int8_t *to, size_t step) {
    const float peak = lm_largest(x, n);
    const uint16_t scale = (uint16_t)((lm_to_bits(peak / 127.0f) + 0xFFFFu) >> 16);
    const float inverse = peak > 0.0f ? 1.0f / lm_bfloat16(scale) : 0.0f;
    for (uint32_t i = 0; i < n; i++) to[i * step] = (int8_t)lm_round(x[i] * inverse);
    return scale;
}

/* Scores of one head's query against slots `first` to `last` (excluded). */
static void score(lm_model *model, const struct lm_layer *layer, const lm_cache *cache, const float *query,
                  uint32_t kv_head, uint32_t first, uint32_t last, float *scores) {
    const lm_matrix shape = {.columns = layer->head_dim, .bits = 8};
    const uint32_t stride = kv_size(layer);
    lm_vector *vector = &model->vector;
    quantize(vector, query, &shape);
    const float factor = vector->scale * layer->scale;
    const int8_t *keys = cache->keys + (size_t)kv_head * layer->head_dim;
    /* Sums go where the scores will be. */
    int32_t *sums = (int32_t *)(void *)(scores + first);
    uint32_t t = first;
    for (; t + 4 <= last; t += 4, sums += 4)
        lm_dot8x4(keys + (size_t)t * stride, stride, vector->values, layer->head_dim, sums);
    for (; t < last; t++) *sums++ = lm_dot8(keys + (size_t)t * stride, vector->values, layer->head_dim);
    lm_scale(scores + first, (int32_t *)(void *)(scores + first), cache->key_scales + first, last - first, factor);
}

/* Softmax of scores times values: one head's output. The weights become 16-bit integers in the place of the scores. */
static void gather(const struct lm_layer *layer, const lm_cache *cache, uint32_t kv_head, uint32_t count, float *scores,
                   float *out) {
    float heaviest;
    const float total = lm_weigh(scores, cache->value_scales, count, lm_peak(scores, count), &heaviest);
    const float range = (float)minimum(32767, 0x7FFFFFFFu / 128 / count); /* sums stay within 32 bits */
    const int16_t *weights = lm_integers(scores, count, heaviest > 0.0f ? range / heaviest : 0.0f);
    const float factor = heaviest / (range * total);
    const int8_t *values = cache->values + (size_t)kv_head * layer->head_dim * layer->capacity;
    int32_t acc[4];
    for (uint32_t d = 0; d < layer->head_dim; d += 4) {
        const int8_t *start = values + (size_t)d * layer->capacity;
        uint32_t full = minimum(layer->head_dim - d, 4);
        if (full == 4) lm_dot16x4(start, layer->capacity, weights, count, acc);
        else
            for (uint32_t r = 0; r < full; r++) acc[r] = lm_dot16(start + (size_t)r * layer->capacity, weights, count);
        for (uint32_t r = 0; r < full; r++) out[d + r] = (float)acc[r] * factor;
    }
}

static void normed_head(const lm_model *model, const struct lm_layer *layer, uint32_t offset, float *head) {
    if (layer->flags & LM_QK_NORM) norm(head, at(model, offset), layer->head_dim, 0, model->header->norm_eps, head);
}

static void attend(lm_model *model, uint32_t index) {
    const struct lm_layer *layer = &model->layers[index];
    lm_cache *cache = &model->caches[index];
    const uint32_t size = layer->head_dim, q_size = layer->heads * size, slot = slot_of(layer, model->position);
    const uint32_t count = minimum(model->position + 1, layer->capacity);
    const uint32_t sinks = model->position < layer->capacity ? 0 : layer->sinks;
    const float *turns = model->rotary + 2 * (layer->rope - 1), *sink_turns = turns + 2 * model->header->rotations;
    float *q = model->scratch, *k = q + q_size, *v = k + kv_size(layer), *far = v + kv_size(layer), *scores = far + size;

    norm_at(model, model->x, layer->attn_norm, model->normed);
    multiply(model, &layer->q, model->normed, q, NULL);
    multiply(model, &layer->k, model->normed, k, &layer->q);
    multiply(model, &layer->v, model->normed, v, &layer->k);
    for (uint32_t h = 0; h < layer->kv_heads; h++) {
        normed_head(model, layer, layer->k_norm, k + h * size);
        if (layer->rope) rotate(k + h * size, size, turns);
    }
    cache->key_scales[slot] = store(k, kv_size(layer), cache->keys + (size_t)slot * kv_size(layer), 1);
    cache->value_scales[slot] = store(v, kv_size(layer), cache->values + slot, layer->capacity);
    for (uint32_t h = 0; h < layer->heads; h++) {
        float *query = q + h * size;
        const uint32_t kv_head = h / (layer->heads / layer->kv_heads);
        normed_head(model, layer, layer->q_norm, query);
        if (sinks) {
            memcpy(far, query, size * sizeof(float));
            if (layer->rope) rotate(far, size, sink_turns);
            score(model, layer, cache, far, kv_head, 0, sinks, scores);
        }
        if (layer->rope) rotate(query, size, turns);
        score(model, layer, cache, query, kv_head, sinks, count, scores);
        if (layer->softcap > 0.0f)
            for (uint32_t t = 0; t < count; t++) scores[t] = layer->softcap * lm_tanh(scores[t] / layer->softcap);
        gather(layer, cache, kv_head, count, scores, query);
    }
    multiply(model, &layer->o, q, model->normed, NULL);
    if (layer->flags & LM_POST_NORMS) norm_at(model, model->normed, layer->post_attn_norm, model->normed);
    for (uint32_t i = 0; i < model->header->hidden; i++) model->x[i] += model->normed[i];
}

/* --- feed-forward, head and steps --------------------------------------------------------------------------------- */

static float activate(uint32_t kind, float x) {
    switch (kind) {
    case LM_SILU: return x / (1.0f + lm_exp(-x));
    case LM_GELU: return 0.5f * x * (1.0f + lm_erf(x * 0.70710678f));
    case LM_GELU_TANH: return x / (1.0f + lm_exp(-1.59576912f * (x + 0.044715f * (x * x * x))));
    default: return x > 0.0f ? x : 0.0f;
    }
}

static void feed(lm_model *model, uint32_t index) {
    const struct lm_layer *layer = &model->layers[index];
    const uint32_t size = layer->up.rows;
    float *up = model->scratch, *gate = up + size;
    norm_at(model, model->x, layer->mlp_norm, model->normed);
    multiply(model, &layer->up, model->normed, up, NULL);
    if (layer->flags & LM_GATED) {
        multiply(model, &layer->gate, model->normed, gate, &layer->up);
        if (layer->activation == LM_SILU) lm_silu_times(up, gate, size);
        else
            for (uint32_t i = 0; i < size; i++) up[i] = activate(layer->activation, gate[i]) * up[i];
    } else {
        for (uint32_t i = 0; i < size; i++) up[i] = activate(layer->activation, up[i]);
    }
    multiply(model, &layer->down, up, model->normed, NULL);
    if (layer->flags & LM_POST_NORMS) norm_at(model, model->normed, layer->post_mlp_norm, model->normed);
    for (uint32_t i = 0; i < model->header->hidden; i++) model->x[i] += model->normed[i];
}

static void predict(lm_model *model) {
    const struct lm_header *header = model->header;
    const float cap = header->logit_softcap;
    norm_at(model, model->x, header->final_norm, model->normed);
    multiply(model, &header->head, model->normed, model->scratch, NULL);
    if (cap > 0.0f)
        for (uint32_t i = 0; i < header->vocab; i++) model->scratch[i] = cap * lm_tanh(model->scratch[i] / cap);
}

lm_status lm_begin(lm_model *model, uint32_t token, int want_logits) {
    const struct lm_header *header = model->header;
    if (!header) return LM_BAD_IMAGE; /* lm_open refused it */
    if (token >= header->vocab) return LM_BAD_TOKEN;
    if (model->position >= header->context && !(model->slides && header->may_slide)) return LM_FULL;
    model->stage = 0;
    model->stages = 2 * header->layer_count + (want_logits ? 1 : 0);
    embed(model, token);
    rotary(model);
    return LM_OK;
}

int lm_advance(lm_model *model) {
    if (model->stage >= model->stages) return 0;
    const uint32_t stage = model->stage++, layer = stage / 2;
    if (layer == model->header->layer_count) predict(model);
    else if (stage & 1) feed(model, layer);
    else attend(model, layer);
    if (model->stage < model->stages) return 1;
    model->position++;
    return 0;
}

lm_status lm_step(lm_model *model, uint32_t token, int want_logits) {
    lm_status status = lm_begin(model, token, want_logits);
    if (status == LM_OK)
        while (lm_advance(model)) {}
    return status;
}

float *lm_logits(lm_model *model) { return model->scratch; }

uint32_t lm_crc32(uint32_t crc, const void *data, size_t size) {
    static const uint32_t table[16] = {0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
                                       0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
                                       0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
    const uint8_t *byte = data;
    crc = ~crc;
    while (size--) {
        crc ^= *byte++;
        crc = (crc >> 4) ^ table[crc & 15];
        crc = (crc >> 4) ^ table[crc & 15];
    }
    return ~crc;
}
