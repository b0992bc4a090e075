/* Elements of a value between memory and registers: float32 to compute with, whatever lies in the arena.
 *
 * simd/memory.py has the same for Numba's kernels. `at` counts elements of the type. bfloat16 is the upper half of a
 * float32: rounded to nearest even, denormals to zeros of their sign, as simd/element.py says; by BFCVTN if the file is
 * compiled for CPUs with FEAT_BF16, else by the same arithmetic on integers. Bytes: to nearest, halves to even,
 * saturated, a NaN as 0.
 */
#ifndef LN_ELEMENTS_H
#define LN_ELEMENTS_H

#include <arm_neon.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "abi.h"

#define LN_LANES 4
#define LN_INLINE static inline __attribute__((always_inline))

/* Element types, simd/element.py. */
typedef enum { LN_F32, LN_U8, LN_BF16 } ln_type;

/* A bfloat16 as its bits, in memory that is float32 to others. */
typedef uint16_t __attribute__((may_alias)) ln_half;

LN_INLINE int64_t ln_bytes_of(const ln_type type) { return type == LN_F32 ? 4 : type == LN_BF16 ? 2 : 1; }

LN_INLINE uint8_t *ln_address(const ln_type type, const ln_memory *memory, int64_t at) {
    return (uint8_t *)memory->arena + at * ln_bytes_of(type);
}

LN_INLINE float32x4_t ln_widened(uint16x4_t halves) { return vreinterpretq_f32_u32(vshll_n_u16(halves, 16)); }

LN_INLINE uint16x4_t ln_rounded_halves(float32x4_t v) {
    const uint32x4_t bits = vreinterpretq_u32_f32(v), sign = vdupq_n_u32(0x80000000u);
    const uint32x4_t tiny = vcaltq_f32(v, vdupq_n_f32(FLT_MIN));
    const uint32x4_t kept = vbslq_u32(tiny, vandq_u32(bits, sign), bits);
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return vreinterpret_u16_bf16(vcvt_bf16_f32(vreinterpretq_f32_u32(kept)));
#else
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(kept, 16), vdupq_n_u32(1));
    const uint32x4_t nearest = vaddq_u32(kept, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), nearest, quiet), 16);
#endif
}

LN_INLINE float ln_half_value(ln_half half) {
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

LN_INLINE ln_half ln_rounded_half(float value) { return vget_lane_u16(ln_rounded_halves(vdupq_n_f32(value)), 0); }

LN_INLINE uint8_t ln_byte(float value) {
    float raised = value > 0 ? value : 0;
    return (uint8_t)rintf(raised < 255 ? raised : 255);
}

/* Four elements as float32. */
LN_INLINE float32x4_t ln_load_from(const ln_type type, const uint8_t *place) {
    if (type == LN_F32) return vld1q_f32((const float *)(const void *)place);
    if (type == LN_BF16) {
        uint16x4_t halves;
        memcpy(&halves, place, sizeof halves);
        return ln_widened(halves);
    }
    uint32_t word;
    memcpy(&word, place, sizeof word);
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(word)))));
}

LN_INLINE float32x4_t ln_load(const ln_type type, const ln_memory *memory, int64_t at) {
    return ln_load_from(type, ln_address(type, memory, at));
}

/* Four int32 to bytes, saturated. */
LN_INLINE void ln_store_bytes_to(uint8_t *place, int32x4_t v) {
    uint8x8_t bytes = vqmovun_s16(vcombine_s16(vqmovn_s32(v), vdup_n_s16(0)));
    uint32_t word = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
    memcpy(place, &word, sizeof word);
}

LN_INLINE void ln_store_bytes(const ln_memory *memory, int64_t at, int32x4_t v) {
    ln_store_bytes_to(ln_address(LN_U8, memory, at), v);
}

/* Four float32 as elements. */
LN_INLINE void ln_store_to(const ln_type type, uint8_t *place, float32x4_t v) {
    if (type == LN_F32) {
        vst1q_f32((float *)(void *)place, v);
    } else if (type == LN_BF16) {
        uint16x4_t halves = ln_rounded_halves(v);
        memcpy(place, &halves, sizeof halves);
    } else {
        ln_store_bytes_to(place, vcvtnq_s32_f32(v));
    }
}

LN_INLINE void ln_store(const ln_type type, const ln_memory *memory, int64_t at, float32x4_t v) {
    ln_store_to(type, ln_address(type, memory, at), v);
}

/* One element from the arena. */
LN_INLINE float ln_get(const ln_type type, const ln_memory *memory, int64_t at) {
    if (type == LN_F32) return memory->arena[at];
    if (type == LN_BF16) return ln_half_value(((const ln_half *)memory->arena)[at]);
    return ((const uint8_t *)memory->arena)[at];
}

/* One element to the arena. */
LN_INLINE void ln_set(const ln_type type, const ln_memory *memory, int64_t at, float value) {
    if (type == LN_F32)
        memory->arena[at] = value;
    else if (type == LN_BF16)
        ((ln_half *)memory->arena)[at] = ln_rounded_half(value);
    else
        ((uint8_t *)memory->arena)[at] = ln_byte(value);
}

#endif
