// TensorFlow Lite Micro behind the runner: one decode step a call, caches updated in place. The caches are inputs that
// the graph lists as outputs too, so the interpreter keeps them; after each step the new rows go into them here.
#include "engine.h"

#include <cstring>
#include <new>

#include "lm_config.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tflm_model.h"

namespace {

alignas(16) uint8_t arena[LM_RAM_BYTES];
alignas(TflmResolver) uint8_t resolver_space[sizeof(TflmResolver)];  // never destroyed, so no exit code is linked
alignas(tflite::MicroInterpreter) uint8_t interpreter_space[sizeof(tflite::MicroInterpreter)];
float logits[LM_VOCAB];
tflite::MicroInterpreter *interpreter;
uint32_t position, token_now;
bool logits_wanted, working;

// Row `position` of a cache takes `count` blocks of `bytes`, each `stride` bytes after the last.
void put(TfLiteTensor *cache, const TfLiteTensor *row, size_t blocks, size_t bytes, size_t stride, size_t first) {
    for (size_t i = 0; i < blocks; i++)
        std::memcpy(cache->data.raw + first + i * stride, row->data.raw_const + i * bytes, bytes);
}

void keep_rows() {
    for (size_t i = 0; i < LM_LAYERS; i++) {
        const TflmLayer &layer = tflm_layers[i];
        const size_t head = layer.head_dim * layer.width, positions = layer.capacity * layer.width;
        // keys: [kv_heads, capacity, head_dim] takes [kv_heads, 1, head_dim]
        put(interpreter->input(layer.key_cache), interpreter->output(layer.key_row), layer.kv_heads, head,
            layer.capacity * head, position * head);
        // values, transposed: [kv_heads, head_dim, capacity] takes [kv_heads, head_dim, 1]
        put(interpreter->input(layer.value_cache), interpreter->output(layer.value_row),
            layer.kv_heads * layer.head_dim, layer.width, positions, position * layer.width);
    }
}

void read_logits() {
    const TfLiteTensor *found = interpreter->output(LM_LOGITS_OUTPUT);
    for (size_t i = 0; i < LM_VOCAB; i++) {
        if (found->type == kTfLiteFloat32) logits[i] = found->data.f[i];
        else {
            const int32_t value = found->type == kTfLiteInt8 ? found->data.int8[i] : found->data.i16[i];
            logits[i] = static_cast<float>(value - LM_LOGITS_ZERO) * LM_LOGITS_SCALE;
        }
    }
}

}  // namespace

lm_status engine_open(engine_facts *facts) {
    if (lm_crc32(0, model_image, model_image_size) != LM_MODEL_CRC) return LM_BAD_CRC;
    const tflite::Model *model = tflite::GetModel(model_image);
    TflmResolver *resolver = new (resolver_space) TflmResolver;
    if (add_operators(*resolver) != kTfLiteOk) return LM_BAD_IMAGE;
    interpreter = new (interpreter_space) tflite::MicroInterpreter(model, *resolver, arena, sizeof arena);
    if (interpreter->AllocateTensors() != kTfLiteOk) return LM_NO_MEMORY;
    *facts = {"edgesdk-tflm",           "tflm",           LM_MODEL_CRC,     LM_VOCAB, LM_CONTEXT,
              static_cast<uint32_t>(interpreter->arena_used_bytes()), tokenizer_table, tokenizer_table_size};
    engine_reset(0);
    return LM_OK;
}

// The caches' own memory: they are written row by row, and rows that were not are masked.
uint32_t *engine_scratch(size_t *words) {
    TfLiteTensor *cache = interpreter->input(tflm_layers[0].key_cache);
    *words = cache->bytes / sizeof(uint32_t);
    return reinterpret_cast<uint32_t *>(cache->data.raw);
}

int engine_reset(int slide) {
    position = 0;
    working = false;
    for (size_t i = 0; i < LM_LAYERS; i++) {
        for (const int input : {tflm_layers[i].key_cache, tflm_layers[i].value_cache}) {
            TfLiteTensor *cache = interpreter->input(input);
            std::memset(cache->data.raw, 0, cache->bytes);
        }
    }
    return !slide;
}

lm_status engine_begin(uint32_t token, int want_logits) {
    if (token >= LM_VOCAB) return LM_BAD_TOKEN;
    if (position >= LM_CONTEXT) return LM_FULL;
    token_now = token;
    logits_wanted = want_logits != 0;
    working = true;
    return LM_OK;
}

int engine_advance(void) {
    if (!working) return 0;
    working = false;
    interpreter->input(LM_TOKEN_INPUT)->data.i32[0] = static_cast<int32_t>(token_now);
    interpreter->input(LM_POSITION_INPUT)->data.i32[0] = static_cast<int32_t>(position);
    if (interpreter->Invoke() != kTfLiteOk) return -1;
    keep_rows();
    if (logits_wanted) read_logits();
    position++;
    return 0;
}

float *engine_logits(void) { return logits; }
