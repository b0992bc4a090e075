/* Dot products of four unsigned bytes of x with four signed bytes of each channel's w, exact in int32.
 *
 * The instruction is settled when the file is compiled, by the features that build.py names:
 *   SUDOT (FEAT_I8MM) does it; for several rows at a time there is USMMLA as well (sums_u8.h).
 *   SDOT (FEAT_DotProd) wants signed bytes: x less 128, which is its top bits turned over, in a general register, so that
 *   the vector units have nothing to do with it. What that leaves out, 128 times the sum of the weights, is in what sums
 *   start from (signed_bias in kernels/step.py).
 *   Otherwise products of 16 bits are added up pairwise.
 */
#ifndef LN_BYTE_DOTS_H
#define LN_BYTE_DOTS_H

#include "common.h"

/* Four bytes as they lie, in lane 0; by a plain load, for the reason of sums_f32.h. */
LN_INLINE uint8x16_t ln_plain_word(const uint8_t *x) {
    uint8x16_t bytes;
    __asm__("ldr %s0, %1" : "=w"(bytes) : "m"(*(const uint32_t *)(const void *)x));
    return bytes;
}

/* Eight bytes as they lie, in lanes 0 and 1. */
LN_INLINE uint8x16_t ln_plain_words(const uint8_t *x) {
    uint8x16_t bytes;
    __asm__("ldr %d0, %1" : "=w"(bytes) : "m"(*(const uint64_t *)(const void *)x));
    return bytes;
}

/* ln_word_at: four bytes of x as ln_byte_dot wants them. ln_byte_starts: where among the weights a step has what its sums
 * start from. */
#if defined(__ARM_FEATURE_MATMUL_INT8)
typedef uint8x16_t ln_bytes;
LN_INLINE int64_t ln_byte_starts(const ln_step *step) { return step->bias; }
LN_INLINE ln_bytes ln_word_at(const uint8_t *x) { return ln_plain_word(x); }
LN_INLINE int32x4_t ln_byte_dot(int32x4_t sum, int8x16_t w, ln_bytes x) { return vsudotq_laneq_s32(sum, w, x, 0); }
#elif defined(__ARM_FEATURE_DOTPROD)
typedef int8x16_t ln_bytes;
LN_INLINE int64_t ln_byte_starts(const ln_step *step) { return step->signed_bias; }
LN_INLINE ln_bytes ln_word_at(const uint8_t *x) {
    uint32_t word;
    ln_bytes bytes;
    memcpy(&word, x, sizeof word);
    __asm__("fmov %s0, %w1" : "=w"(bytes) : "r"(word ^ 0x80808080u));
    return bytes;
}
LN_INLINE int32x4_t ln_byte_dot(int32x4_t sum, int8x16_t w, ln_bytes x) { return vdotq_laneq_s32(sum, w, x, 0); }
#else
typedef int16x4_t ln_bytes;
LN_INLINE int64_t ln_byte_starts(const ln_step *step) { return step->bias; }
LN_INLINE ln_bytes ln_word_at(const uint8_t *x) {
    return vget_low_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(ln_plain_word(x)))));
}
LN_INLINE int32x4_t ln_byte_dot(int32x4_t sum, int8x16_t w, ln_bytes x) {
    int16x8_t low = vmovl_s8(vget_low_s8(w)), high = vmovl_s8(vget_high_s8(w));
    int32x4_t first = vpaddq_s32(vmull_s16(vget_low_s16(low), x), vmull_s16(vget_high_s16(low), x));
    int32x4_t second = vpaddq_s32(vmull_s16(vget_low_s16(high), x), vmull_s16(vget_high_s16(high), x));
    return vaddq_s32(sum, vpaddq_s32(first, second));
}
#endif

#endif
