/* What the runner asks of a model, whichever runtime is behind it: engine_c99.c or engine_tflm.cc. */
#ifndef ENGINE_H
#define ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "../runtime/lm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *runner;  /* edgesdk-c99 or edgesdk-tflm */
    const char *kernels;
    uint32_t crc;        /* of the model */
    uint32_t vocab, context;
    uint32_t ram;        /* bytes that the model works in */
    const void *tokenizer;
    size_t tokenizer_size;
} engine_facts;

/* Check the model and lay out its memory. */
lm_status engine_open(engine_facts *facts);

/* Memory that is free until the first token, for the tokenizer. */
uint32_t *engine_scratch(size_t *words);

/* Forget all tokens. Returns 0 when a full context should slide and this model cannot. */
int engine_reset(int slide);

/* As lm_begin, lm_advance and lm_logits; engine_advance returns -1 when the runtime fails. */
lm_status engine_begin(uint32_t token, int want_logits);
int engine_advance(void);
float *engine_logits(void);

#ifdef __cplusplus
}
#endif
#endif
