/* Choosing the next token. */
#include "lm.h"
#include "lm_math.h"

static uint32_t best(const float *logits, uint32_t vocab) {
    uint32_t found = 0;
    for (uint32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[found]) found = i;
    return found;
}

/* The sum of all probabilities that are at least `least`. */
static float mass(const float *weights, uint32_t vocab, float least) {
    float sum = 0.0f;
    for (uint32_t i = 0; i < vocab; i++)
        if (weights[i] >= least) sum += weights[i];
    return sum;
}

/* The largest probability such that those at least as large sum to `wanted`: bisection over the bits of the float, which
 * are ordered as the numbers are. */
static float threshold(const float *weights, uint32_t vocab, float wanted) {
    uint32_t low = 0, high = lm_to_bits(1.0f); /* weights lie in [0, 1]; low always holds enough, high + 1 never */
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (mass(weights, vocab, lm_from_bits(middle)) >= wanted) low = middle;
        else high = middle - 1;
    }
    return lm_from_bits(low);
}

static float random(lm_sampler *sampler) {
    uint32_t state = sampler->state ? sampler->state : 1;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    sampler->state = state;
    return (float)((state * 2654435769u) >> 8) * 5.9604645e-8f; /* [0, 1); the product spreads the bits of small seeds */
}

uint32_t lm_sample(lm_sampler *sampler, float *logits, uint32_t vocab) {
    const uint32_t likeliest = best(logits, vocab);
    if (!(sampler->temperature > 0.0f)) return likeliest;
    const float peak = logits[likeliest], inverse = 1.0f / sampler->temperature;
    for (uint32_t i = 0; i < vocab; i++) logits[i] = lm_exp((logits[i] - peak) * inverse);
    const float all = mass(logits, vocab, 0.0f);
    const float least = sampler->top_p < 1.0f ? threshold(logits, vocab, all * sampler->top_p) : 0.0f;
    float left = random(sampler) * mass(logits, vocab, least);
    for (uint32_t i = 0; i < vocab; i++) {
        if (logits[i] < least) continue;
        left -= logits[i];
        if (left < 0.0f) return i;
    }
    return likeliest; /* rounding left a little over */
}
