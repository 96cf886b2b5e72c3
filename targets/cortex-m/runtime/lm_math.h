/* Float functions in + - * / and integer steps alone, so that every core and edgesdk's Python double agree bit for bit.
 * Build with -ffp-contract=off. Polynomials: minimax of the classic degree (Cody and Waite, 1980); erf: Abramowitz and
 * Stegun 7.1.26, |error| < 1.5e-7.
 */
#ifndef LM_MATH_H
#define LM_MATH_H

#include <stdint.h>
#include <string.h>

static inline float lm_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint32_t lm_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline float lm_abs(float value) { return lm_from_bits(lm_to_bits(value) & 0x7FFFFFFFu); }

/* The nearest whole number, ties to even, of a value within +-2^22. */
static inline int32_t lm_round(float value) {
    return (int32_t)(lm_to_bits(value + 12582912.0f) - 0x4B400000u);
}

/* e^x, relative error below 2e-7; x is clamped to [-87, 88]. */
static inline float lm_exp(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    int32_t n = lm_round(x * 1.44269504f);
    float count = (float)n;
    float f = (x - count * 0.693359375f) - count * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    return (((p * f) * f + f) + 1.0f) * lm_from_bits((uint32_t)(n + 127) << 23);
}

static inline float lm_tanh(float x) { return 1.0f - 2.0f / (lm_exp(2.0f * x) + 1.0f); }

static inline float lm_erf(float x) {
    float a = lm_abs(x);
    float t = 1.0f / (1.0f + 0.3275911f * a);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    float y = 1.0f - (p * t) * lm_exp(-(a * a));
    return x < 0.0f ? -y : y;
}

/* Cosine and sine of a phase in turns * 2^32. */
static inline void lm_cos_sin(uint32_t phase, float *cosine, float *sine) {
    uint32_t quadrant = (phase + 0x20000000u) >> 30;
    float x = (float)(int32_t)(phase - (quadrant << 30)) * 1.46291808e-9f; /* 2 pi / 2^32 */
    float z = x * x;
    float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * x + x;
    float c = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * (z * z) - 0.5f * z
              + 1.0f;
    *cosine = (quadrant & 1) ? s : c;
    *sine = (quadrant & 1) ? c : s;
    if (quadrant == 1 || quadrant == 2) *cosine = -*cosine;
    if (quadrant == 2 || quadrant == 3) *sine = -*sine;
}

static inline float lm_bfloat16(uint16_t half) { return lm_from_bits((uint32_t)half << 16); }

#endif
