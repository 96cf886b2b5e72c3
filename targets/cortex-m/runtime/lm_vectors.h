/* Float loops of the decoder: portable, and four lanes at a time on MVE. Both do the same operations on every element,
 * and sums go to four lanes (element i to lane i % 4), so they agree bit for bit. (MVE flushes results below 1.2e-38 to
 * zero; nothing that small survives the rounding to integers that follows.)
 */
#ifndef LM_VECTORS_H
#define LM_VECTORS_H

#include "lm_kernels.h"
#include "lm_math.h"

static inline float lm_lanes_sum(const float *lanes) { return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]); }

#if !defined(LM_PORTABLE) && defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)

#define LM_EACH4(i, n, lanes)                                                                                          \
    for (uint32_t i = 0, lanes##_left = (n); i < (n); i += 4, lanes##_left -= 4)                                       \
        for (mve_pred16_t lanes = vctp32q(lanes##_left), lanes##_once = 1; lanes##_once; lanes##_once = 0)

static inline float lm_largest(const float *x, uint32_t n) {
    float32x4_t found = vdupq_n_f32(0.0f);
    LM_EACH4(i, n, lanes) found = vmaxnmaq_m_f32(found, vld1q_z_f32(x + i, lanes), lanes);
    return vmaxnmvq_f32(0.0f, found);
}

static inline int32x4_t lm_round4(float32x4_t x) {
    return vsubq_n_s32(vreinterpretq_s32_f32(vaddq_n_f32(x, 12582912.0f)), 0x4B400000);
}

static inline float32x4_t lm_exp4(float32x4_t x) {
    x = vminnmq_f32(vmaxnmq_f32(x, vdupq_n_f32(-87.0f)), vdupq_n_f32(88.0f));
    int32x4_t n = lm_round4(vmulq_n_f32(x, 1.44269504f));
    float32x4_t count = vcvtq_f32_s32(n);
    float32x4_t f = vsubq_f32(x, vmulq_n_f32(count, 0.693359375f));
    f = vsubq_f32(f, vmulq_n_f32(count, -2.12194440e-4f));
    float32x4_t p = vdupq_n_f32(1.9875691500e-4f);
    p = vaddq_n_f32(vmulq_f32(p, f), 1.3981999507e-3f);
    p = vaddq_n_f32(vmulq_f32(p, f), 8.3334519073e-3f);
    p = vaddq_n_f32(vmulq_f32(p, f), 4.1665795894e-2f);
    p = vaddq_n_f32(vmulq_f32(p, f), 1.6666665459e-1f);
    p = vaddq_n_f32(vmulq_f32(p, f), 5.0000001201e-1f);
    p = vaddq_n_f32(vaddq_f32(vmulq_f32(vmulq_f32(p, f), f), f), 1.0f);
    return vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_n_s32(n, 127), 23)));
}

static inline float32x4_t lm_bfloat16x4(const uint16_t *at, mve_pred16_t lanes) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vldrhq_z_u32(at, lanes), 16));
}

static inline void lm_quantize8(const float *x, uint32_t n, float inverse, lm_x *to) {
    LM_EACH4(i, n, lanes) vstrbq_p_s32(to + i, lm_round4(vmulq_n_f32(vld1q_z_f32(x + i, lanes), inverse)), lanes);
}

static inline void lm_scale(float *scores, const int32_t *sums, const uint16_t *scales, uint32_t n, float factor) {
    LM_EACH4(i, n, lanes) {
        float32x4_t sum = vcvtq_f32_s32(vld1q_z_s32(sums + i, lanes));
        vst1q_p_f32(scores + i, vmulq_f32(sum, vmulq_n_f32(lm_bfloat16x4(scales + i, lanes), factor)), lanes);
    }
}

static inline float lm_peak(const float *x, uint32_t n) {
    float32x4_t found = vdupq_n_f32(x[0]);
    LM_EACH4(i, n, lanes) found = vmaxnmq_m_f32(found, found, vld1q_z_f32(x + i, lanes), lanes);
    return vmaxnmvq_f32(x[0], found);
}

static inline float lm_weigh(float *scores, const uint16_t *scales, uint32_t n, float peak, float *heaviest) {
    float32x4_t sums = vdupq_n_f32(0.0f), most = vdupq_n_f32(0.0f);
    LM_EACH4(i, n, lanes) {
        float32x4_t weight = lm_exp4(vsubq_n_f32(vld1q_z_f32(scores + i, lanes), peak));
        sums = vaddq_m_f32(sums, sums, weight, lanes);
        weight = vmulq_f32(weight, lm_bfloat16x4(scales + i, lanes));
        most = vmaxnmq_m_f32(most, most, weight, lanes);
        vst1q_p_f32(scores + i, weight, lanes);
    }
    float lanes[4];
    vst1q_f32(lanes, sums);
    *heaviest = vmaxnmvq_f32(0.0f, most);
    return lm_lanes_sum(lanes);
}

static inline const int16_t *lm_integers(float *weights, uint32_t n, float inverse) {
    int16_t *to = (int16_t *)(void *)weights;
    LM_EACH4(i, n, lanes) vstrhq_p_s32(to + i, lm_round4(vmulq_n_f32(vld1q_z_f32(weights + i, lanes), inverse)), lanes);
    return to;
}

static inline void lm_silu_times(float *up, const float *gate, uint32_t n) {
    LM_EACH4(i, n, lanes) {
        float32x4_t x = vld1q_z_f32(gate + i, lanes);
        float32x4_t below = vaddq_n_f32(lm_exp4(vnegq_f32(x)), 1.0f), y;
        for (int r = 0; r < 4; r++) y[r] = x[r] / below[r]; /* MVE has no division */
        vst1q_p_f32(up + i, vmulq_f32(y, vld1q_z_f32(up + i, lanes)), lanes);
    }
}

#else

/* The largest magnitude. */
static inline float lm_largest(const float *x, uint32_t n) {
    float found = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        float value = lm_abs(x[i]);
        found = value > found ? value : found;
    }
    return found;
}

/* Whole numbers in the order of the kernel for 8-bit rows. */
static inline void lm_quantize8(const float *x, uint32_t n, float inverse, lm_x *to) {
    for (uint32_t i = 0; i < n; i++) to[lm_place8(i, n)] = (lm_x)lm_round(x[i] * inverse);
}

/* scores = sums * (scales * factor). */
static inline void lm_scale(float *scores, const int32_t *sums, const uint16_t *scales, uint32_t n, float factor) {
    for (uint32_t i = 0; i < n; i++) scores[i] = (float)sums[i] * (lm_bfloat16(scales[i]) * factor);
}

/* The largest of n > 0 values. */
static inline float lm_peak(const float *x, uint32_t n) {
    float found = x[0];
    for (uint32_t i = 1; i < n; i++) found = x[i] > found ? x[i] : found;
    return found;
}

/* Scores become weights exp(score - peak) * scale; returns the sum of the exponentials, and the largest weight. */
static inline float lm_weigh(float *scores, const uint16_t *scales, uint32_t n, float peak, float *heaviest) {
    float lanes[4] = {0}, most = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        float weight = lm_exp(scores[i] - peak);
        lanes[i & 3] += weight;
        weight *= lm_bfloat16(scales[i]);
        most = weight > most ? weight : most;
        scores[i] = weight;
    }
    *heaviest = most;
    return lm_lanes_sum(lanes);
}

/* Weights as 16-bit integers in the order of the kernel, in their own place: a block of four lies before its floats, or
 * within them. */
static inline const int16_t *lm_integers(float *weights, uint32_t n, float inverse) {
    int16_t *to = (int16_t *)(void *)weights;
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        int32_t a = lm_round(weights[i] * inverse), b = lm_round(weights[i + 1] * inverse);
        int32_t c = lm_round(weights[i + 2] * inverse), d = lm_round(weights[i + 3] * inverse);
        to[i] = (int16_t)a;
        to[i + lm_place16(1, 4)] = (int16_t)b;
        to[i + lm_place16(2, 4)] = (int16_t)c;
        to[i + 3] = (int16_t)d;
    }
    for (; i < n; i++) to[i] = (int16_t)lm_round(weights[i] * inverse);
    return to;
}

/* up = up * silu(gate). */
static inline void lm_silu_times(float *up, const float *gate, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) up[i] = gate[i] / (1.0f + lm_exp(-gate[i])) * up[i];
}

#endif
#endif
