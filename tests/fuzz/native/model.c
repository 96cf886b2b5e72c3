/* An image of the C99 runtime: its size and its CRC are set right, so that what is inside is looked at. */
#include <stdlib.h>
#include <string.h>

#include "lm.h"
#include "lm_image.h"

#define MOST_RAM (4u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    lm_model model;
    struct lm_header *header;
    uint8_t *image;
    void *ram;
    size_t needed;
    if (size < sizeof *header || posix_memalign((void **)&image, 16, size)) return -1;
    memcpy(image, data, size);
    header = (struct lm_header *)(void *)image;
    header->magic = LM_MAGIC;
    header->version = LM_VERSION;
    header->size = (uint32_t)size;
    header->crc = lm_crc32(0, image + offsetof(struct lm_header, vocab), size - offsetof(struct lm_header, vocab));
    if (lm_open(&model, image, size, NULL, 0) == LM_NO_MEMORY && (needed = lm_ram_bytes(image)) <= MOST_RAM) {
        ram = calloc(1, needed ? needed : 1);
        if (lm_open(&model, image, size, ram, needed) == LM_OK) {
            const uint32_t vocab = header->vocab;
            lm_sampler sampler = {0.8f, 0.9f, 1};
            model.slides = 1;
            for (uint32_t step = 0; step < 3; step++) {
                if (lm_step(&model, (step * 7919u) % vocab, 1) != LM_OK) break;
                if (lm_sample(&sampler, lm_logits(&model), vocab) >= vocab) abort();
            }
        }
        free(ram);
    }
    free(image);
    return 0;
}
