/* What becomes of sums of integers before they are stored: kernels/requantize.py, whose formula this is. */
#ifndef LN_REQUANTIZE_H
#define LN_REQUANTIZE_H

#include "common.h"

/* step->numbers points at these among the weights. */
typedef struct {
    float low, high, zero, inner_low, inner_high, inner_scale, b_zero, b_scale;
} ln_numbers;

/* A step's numbers in registers. stages: INNER and CLIP. */
typedef struct {
    float32x4_t low, high, inner_low, inner_high, inner_scale, b_zero, b_scale;
    int32x4_t zero;
    int64_t stages;
} ln_requantizer;

LN_INLINE ln_requantizer ln_requantizer_of(const ln_memory *memory, int64_t at, int64_t stages) {
    const ln_numbers *n = (const ln_numbers *)(memory->weights + at);
    return (ln_requantizer){
        vdupq_n_f32(n->low),        vdupq_n_f32(n->high),    vdupq_n_f32(n->inner_low),     vdupq_n_f32(n->inner_high),
        vdupq_n_f32(n->inner_scale), vdupq_n_f32(n->b_zero), vdupq_n_f32(n->b_scale), vdupq_n_s32((int32_t)n->zero),
        stages,
    };
}

/* Four sums times scale, to y; b counts elements of B and means nothing if has_b is 0. */
LN_INLINE void ln_requantize(const ln_requantizer *r, const ln_type Y, const ln_type B, const ln_memory *memory,
                             int32x4_t sums, float32x4_t scale, int64_t has_b, int64_t b, int64_t y) {
    float32x4_t t = vmulq_f32(vcvtq_f32_s32(sums), scale);
    if (r->stages & INNER) t = vmulq_f32(vrndnq_f32(ln_clip(t, r->inner_low, r->inner_high)), r->inner_scale);
    if (has_b) t = vaddq_f32(t, vmulq_f32(vsubq_f32(ln_load(B, memory, b), r->b_zero), r->b_scale));
    if (r->stages & CLIP) t = ln_clip(t, r->low, r->high);
    if (Y == LN_F32)
        ln_store(Y, memory, y, t);
    else
        ln_store_bytes(memory, y, vaddq_s32(vcvtnq_s32_f32(t), r->zero));
}

#endif
