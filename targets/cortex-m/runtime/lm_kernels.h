/* Integer dot products: portable loops, DSP instructions (Cortex-M4, M7, M33), MVE (Cortex-M55). Sums of integers are
 * exact, so all forms agree bit for bit. -DLM_PORTABLE forces the loops.
 *
 * A kernel takes one or four rows. Vectors are stored in the order that the kernel likes: lm_place8 and lm_place4 say
 * where element i of a vector for 8-bit and for 4-bit rows goes (a block that is not full stays in order), and
 * lm_place16 for vectors of 16 bits.
 */
#ifndef LM_KERNELS_H
#define LM_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(LM_PORTABLE) && defined(__ARM_FEATURE_MVE)
#define LM_KERNELS "mve"
#include <arm_mve.h>

typedef int8_t lm_x;

static inline size_t lm_place8(size_t i, size_t n) { (void)n; return i; }
static inline size_t lm_place16(size_t i, size_t n) { (void)n; return i; }
static inline size_t lm_place4(size_t i, size_t n) {
    return i < (n & ~(size_t)31) ? (i & ~(size_t)31) + ((i & 1) << 4) + ((i & 31) >> 1) : i;
}

static inline void lm_dot8x4(const int8_t *a, size_t stride, const lm_x *x, size_t n, int32_t *acc) {
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (size_t i = 0; i < n; i += 16) {
        mve_pred16_t lanes = vctp8q((uint32_t)(n - i));
        int8x16_t v = vldrbq_z_s8(x + i, lanes);
        s0 = vmladavaq_s8(s0, vldrbq_z_s8(a + i, lanes), v);
        s1 = vmladavaq_s8(s1, vldrbq_z_s8(a + stride + i, lanes), v);
        s2 = vmladavaq_s8(s2, vldrbq_z_s8(a + 2 * stride + i, lanes), v);
        s3 = vmladavaq_s8(s3, vldrbq_z_s8(a + 3 * stride + i, lanes), v);
    }
    acc[0] = s0, acc[1] = s1, acc[2] = s2, acc[3] = s3;
}

static inline int32_t lm_dot8(const int8_t *a, const lm_x *x, size_t n) {
    int32_t s = 0;
    for (size_t i = 0; i < n; i += 16) {
        mve_pred16_t lanes = vctp8q((uint32_t)(n - i));
        s = vmladavaq_s8(s, vldrbq_z_s8(a + i, lanes), vldrbq_z_s8(x + i, lanes));
    }
    return s;
}

static inline void lm_dot16x4(const int8_t *a, size_t stride, const int16_t *x, size_t n, int32_t *acc) {
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (size_t i = 0; i < n; i += 8) {
        mve_pred16_t lanes = vctp16q((uint32_t)(n - i));
        int16x8_t v = vldrhq_z_s16(x + i, lanes);
        s0 = vmladavaq_s16(s0, vldrbq_z_s16(a + i, lanes), v);
        s1 = vmladavaq_s16(s1, vldrbq_z_s16(a + stride + i, lanes), v);
        s2 = vmladavaq_s16(s2, vldrbq_z_s16(a + 2 * stride + i, lanes), v);
        s3 = vmladavaq_s16(s3, vldrbq_z_s16(a + 3 * stride + i, lanes), v);
    }
    acc[0] = s0, acc[1] = s1, acc[2] = s2, acc[3] = s3;
}

static inline int32_t lm_dot16(const int8_t *a, const int16_t *x, size_t n) {
    int32_t s = 0;
    for (size_t i = 0; i < n; i += 8) {
        mve_pred16_t lanes = vctp16q((uint32_t)(n - i));
        s = vmladavaq_s16(s, vldrbq_z_s16(a + i, lanes), vldrhq_z_s16(x + i, lanes));
    }
    return s;
}

static inline int32_t lm_dot4(const uint8_t *a, const lm_x *x, size_t n) {
    int32_t s = 0;
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        uint8x16_t pairs = vldrbq_u8(a + i / 2);
        int8x16_t low = vreinterpretq_s8_u8(vandq_u8(pairs, vdupq_n_u8(15)));
        s = vmladavaq_s8(s, low, vldrbq_s8(x + i));
        s = vmladavaq_s8(s, vreinterpretq_s8_u8(vshrq_n_u8(pairs, 4)), vldrbq_s8(x + i + 16));
    }
    for (; i < n; i += 2) s += (a[i / 2] & 15) * x[i] + (a[i / 2] >> 4) * x[i + 1];
    return s;
}

static inline void lm_dot4x4(const uint8_t *a, size_t stride, const lm_x *x, size_t n, int32_t *acc) {
    for (size_t r = 0; r < 4; r++) acc[r] = lm_dot4(a + r * stride, x, n);
}

#else

#if !defined(LM_PORTABLE) && defined(__ARM_FEATURE_SIMD32)
#define LM_KERNELS "dsp"
#include <arm_acle.h>

typedef int16_t lm_x; /* pairs for SMLAD */

static inline size_t lm_place8(size_t i, size_t n) {
    return i < (n & ~(size_t)3) ? (i & ~(size_t)3) | ((i & 1) << 1) | ((i >> 1) & 1) : i;
}
static inline size_t lm_place4(size_t i, size_t n) {
    return i < (n & ~(size_t)7) ? (i & ~(size_t)7) + ((i & 3) << 1) + ((i >> 2) & 1) : i;
}

static inline uint32_t lm_word(const void *at) {
    uint32_t word;
    memcpy(&word, at, 4);
    return word;
}

static inline int32_t lm_mac(uint32_t bytes, uint32_t even, uint32_t odd, int32_t s) {
    s = __smlad((int32_t)__sxtb16(bytes), (int32_t)even, s);
    return __smlad((int32_t)__sxtb16((bytes >> 8) | (bytes << 24)), (int32_t)odd, s);
}

static inline void lm_dot8x4(const int8_t *a, size_t stride, const lm_x *x, size_t n, int32_t *acc) {
    const int8_t *b = a + stride, *c = b + stride, *d = c + stride;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        uint32_t even = lm_word(x + i), odd = lm_word(x + i + 2);
        s0 = lm_mac(lm_word(a + i), even, odd, s0);
        s1 = lm_mac(lm_word(b + i), even, odd, s1);
        s2 = lm_mac(lm_word(c + i), even, odd, s2);
        s3 = lm_mac(lm_word(d + i), even, odd, s3);
    }
    for (; i < n; i++) s0 += a[i] * x[i], s1 += b[i] * x[i], s2 += c[i] * x[i], s3 += d[i] * x[i];
    acc[0] = s0, acc[1] = s1, acc[2] = s2, acc[3] = s3;
}

static inline int32_t lm_dot8(const int8_t *a, const lm_x *x, size_t n) {
    int32_t s = 0;
    size_t i = 0;
    for (; i + 4 <= n; i += 4) s = lm_mac(lm_word(a + i), lm_word(x + i), lm_word(x + i + 2), s);
    for (; i < n; i++) s += a[i] * x[i];
    return s;
}

static inline int32_t lm_mac4(uint32_t nibbles, const lm_x *x, int32_t s) {
    s = __smlad((int32_t)(nibbles & 0x000F000Fu), (int32_t)lm_word(x), s);
    s = __smlad((int32_t)(nibbles >> 4 & 0x000F000Fu), (int32_t)lm_word(x + 2), s);
    s = __smlad((int32_t)(nibbles >> 8 & 0x000F000Fu), (int32_t)lm_word(x + 4), s);
    return __smlad((int32_t)(nibbles >> 12 & 0x000F000Fu), (int32_t)lm_word(x + 6), s);
}

static inline int32_t lm_dot4(const uint8_t *a, const lm_x *x, size_t n) {
    int32_t s = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) s = lm_mac4(lm_word(a + i / 2), x + i, s);
    for (; i < n; i += 2) s += (a[i / 2] & 15) * x[i] + (a[i / 2] >> 4) * x[i + 1];
    return s;
}

static inline void lm_dot4x4(const uint8_t *a, size_t stride, const lm_x *x, size_t n, int32_t *acc) {
    const uint8_t *b = a + stride, *c = b + stride, *d = c + stride;
    if (n & 7) {
        for (size_t r = 0; r < 4; r++) acc[r] = lm_dot4(a + r * stride, x, n);
        return;
    }
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (size_t i = 0; i < n; i += 8) {
        s0 = lm_mac4(lm_word(a + i / 2), x + i, s0);
        s1 = lm_mac4(lm_word(b + i / 2), x + i, s1);
        s2 = lm_mac4(lm_word(c + i / 2), x + i, s2);
        s3 = lm_mac4(lm_word(d + i / 2), x + i, s3);
    }
    acc[0] = s0, acc[1] = s1, acc[2] = s2, acc[3] = s3;
}

#else
#define LM_KERNELS "portable"

typedef int16_t lm_x;

static inline size_t lm_place8(size_t i, size_t n) { (void)n; return i; }
static inline size_t lm_place4(size_t i, size_t n) { (void)n; return i; }

static inline int32_t lm_dot8(const int8_t *a, const lm_x *x, size_t n) {
    int32_t s = 0;
    for (size_t i = 0; i < n; i++) s += a[i] * x[i];
    return s;
}

static inline void lm_dot8x4(const int8_t *a, size_t stride, const lm_x *x, size_t n, int32_t *acc) {
    for (size_t r = 0; r < 4; r++) acc[r] = lm_dot8(a + r * stride, x, n);
}

static inline int32_t lm_dot4(const uint8_t *a, const lm_x *x, size_t n) {
    int32_t s = 0;
    for (size_t i = 0; i < n; i += 2) s += (a[i / 2] & 15) * x[i] + (a[i / 2] >> 4) * x[i + 1];
    return s;
}

static inline void lm_dot4x4(const uint8_t *a, size_t stride, const lm_x *x, size_t n, int32_t *acc) {
    for (size_t r = 0; r < 4; r++) acc[r] = lm_dot4(a + r * stride, x, n);
}

#endif

/* Here vectors for 8-bit rows have 16 bits already. */
static inline size_t lm_place16(size_t i, size_t n) { return lm_place8(i, n); }
static inline int32_t lm_dot16(const int8_t *a, const int16_t *x, size_t n) { return lm_dot8(a, x, n); }
static inline void lm_dot16x4(const int8_t *a, size_t stride, const int16_t *x, size_t n, int32_t *acc) {
    lm_dot8x4(a, stride, x, n, acc);
}

#endif
#endif
