/* Dot products of two bfloat16 of x with two of each channel's w, added to float32.
 *
 * Settled when the file is compiled:
 *   BFDOT (FEAT_BF16) adds the two products to each other and then to the sum, both times rounding to odd and taking
 *   denormals for zeros; a CPU with FEAT_EBF16 keeps to that unless told otherwise (FPCR.EBF, which Linux leaves at 0).
 *   Otherwise two fused multiply-adds, of the odd elements and then of the even ones: the bits of simd/dot.py.
 * Arm Architecture Reference Manual (DDI 0487), BFDOT (by element) and BFMMLA.
 */
#ifndef LN_PAIR_DOTS_H
#define LN_PAIR_DOTS_H

#include "common.h"

/* A pair in lane 0, by a plain load, for the reason of sums_f32.h; and one element with a zero behind it. */
LN_INLINE uint32x4_t ln_pair_word(const ln_half *x) {
    uint32x4_t word;
    __asm__("ldr %s0, %1" : "=w"(word) : "m"(*(const uint32_t *)(const void *)x));
    return word;
}
LN_INLINE uint32x4_t ln_last_word(const ln_half *x) { return vsetq_lane_u32(*x, vdupq_n_u32(0), 0); }

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
typedef bfloat16x8_t ln_pairs;
LN_INLINE ln_pairs ln_pairs_of(uint32x4_t words) { return vreinterpretq_bf16_u32(words); }
LN_INLINE float32x4_t ln_pair_dot(float32x4_t sum, ln_pairs w, ln_pairs x) { return vbfdotq_laneq_f32(sum, w, x, 0); }
#else
typedef struct {
    float32x4_t even, odd;
} ln_pairs;
LN_INLINE ln_pairs ln_pairs_of(uint32x4_t words) {
    return (ln_pairs){
        vreinterpretq_f32_u32(vshlq_n_u32(words, 16)),
        vreinterpretq_f32_u32(vandq_u32(words, vdupq_n_u32(0xFFFF0000u))),
    };
}
LN_INLINE float32x4_t ln_pair_dot(float32x4_t sum, ln_pairs w, ln_pairs x) {
    return vfmaq_laneq_f32(vfmaq_laneq_f32(sum, w.odd, x.odd, 0), w.even, x.even, 0);
}
#endif

/* Four channels' words. */
LN_INLINE uint32x4_t ln_weight_words(const float *w) { return vreinterpretq_u32_f32(vld1q_f32(w)); }

#endif
