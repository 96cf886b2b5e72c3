#include "engine.h"

#include "../runtime/lm_image.h"
#include "../runtime/lm_kernels.h"
#include "lm_config.h"

static uint64_t ram[(LM_RAM_BYTES + 7) / 8];
static lm_model model;

lm_status engine_open(engine_facts *facts) {
    const lm_status status = lm_open(&model, model_image, model_image_size, ram, sizeof ram);
    if (status != LM_OK) return status;
    const struct lm_header *header = model.header;
    *facts = (engine_facts){"edgesdk-c99", LM_KERNELS, header->crc, header->vocab, header->context, header->ram,
                            model_image + header->tokenizer, header->tokenizer_size};
    return LM_OK;
}

uint32_t *engine_scratch(size_t *words) {
    uint32_t *caches = (uint32_t *)(void *)model.caches[0].keys;
    *words = (size_t)((const uint8_t *)ram + sizeof ram - (const uint8_t *)caches) / sizeof *caches;
    return caches;
}

int engine_reset(int slide) {
    model.slides = slide;
    lm_reset(&model);
    return !slide || model.header->may_slide;
}

lm_status engine_begin(uint32_t token, int want_logits) { return lm_begin(&model, token, want_logits); }

int engine_advance(void) { return lm_advance(&model); }

float *engine_logits(void) { return lm_logits(&model); }
