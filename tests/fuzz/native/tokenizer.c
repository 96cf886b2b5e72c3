/* A table of the tokenizer in C and a text: how many bytes of the input are the text stands in its last two. */
#include <stdlib.h>
#include <string.h>

#include "lm_tokenizer.h"

#define MOST_TEXT 256u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    lm_tokenizer tokenizer;
    if (size < 2) return -1;
    size -= 2;
    size_t length = (data[size] | (size_t)data[size + 1] << 8) % (MOST_TEXT + 1);
    if (length > size) length = size;
    const size_t count = size - length;
    uint8_t *table = malloc(count ? count : 1);
    char *text = malloc(length ? length : 1);
    memcpy(table, data, count);
    memcpy(text, data + count, length);
    if (lm_tokenizer_open(&tokenizer, table, count) == LM_TOKENIZER_OK) {
        const size_t room = LM_TOKENIZER_SCRATCH(length);
        const size_t most = lm_tokenizer_most_bytes(&tokenizer) < 4096 ? lm_tokenizer_most_bytes(&tokenizer) : 4096;
        lm_ids out = {malloc(4 * (length + 64)), length + 64, 0, malloc(4 * room), room};
        char *piece = malloc(most ? most : 1);
        size_t written;
        lm_decoder decoder;
        lm_tokenizer_prefix(&tokenizer, &out);
        lm_tokenizer_encode(&tokenizer, text, length, &out);
        if (out.count > out.capacity) abort();
        lm_decoder_start(&tokenizer, &decoder);
        for (size_t i = 0; i < out.count; i++) {
            lm_tokenizer_is_stop(&tokenizer, out.ids[i]);
            if (lm_decoder_token(&tokenizer, &decoder, out.ids[i], piece, most, &written) == LM_TOKENIZER_OK
                && written > most)
                abort();
        }
        lm_decoder_end(&tokenizer, &decoder, piece, most, &written);
        free(out.ids);
        free(out.scratch);
        free(piece);
    }
    free(table);
    free(text);
    return 0;
}
