/* What kernels share: vectors, loops over rows and images, the halo. */
#ifndef LN_COMMON_H
#define LN_COMMON_H

#include "elements.h"

#define LN_UNROLLED _Pragma("GCC unroll 64")
#define LN_ARGUMENTS                                                                                                  \
    const ln_memory *memory, const ln_step *step, int64_t images, int64_t unit,                                       \
        __attribute__((unused)) int64_t worker

#define LN_KERNEL(name) void ln_kernel_##name(LN_ARGUMENTS)

/* A kernel that is written once for all element types: X, Y and B, of its operands, are constants in each instance. */
#define LN_TYPED_KERNEL(name)                                                                                         \
    LN_INLINE void ln_typed_##name(__attribute__((unused)) const ln_type X, __attribute__((unused)) const ln_type Y,  \
                                   __attribute__((unused)) const ln_type B, LN_ARGUMENTS)
#define LN_INSTANCE(name, suffix, x_type, y_type, b_type)                                                             \
    void ln_kernel_##name##suffix(LN_ARGUMENTS) {                                                                     \
        ln_typed_##name(x_type, y_type, b_type, memory, step, images, unit, worker);                                  \
    }

#define LN_TYPED_KERNEL_OF(name) LN_TYPED_KERNEL(name) /* where the name is a macro */
#define LN_INSTANCE_OF(name, suffix, x_type, y_type, b_type) LN_INSTANCE(name, suffix, x_type, y_type, b_type)

/* What plans in bfloat16 need of a kernel, beside float32 throughout: one instance for each type of x, in which those of
 * y and b are variables that only loads and stores ask for, and a name for each combination. */
#define LN_SHARED(name, which, x_type)                                                                                \
    static __attribute__((noinline)) void ln_##which##_##name(ln_type y_type, ln_type b_type, LN_ARGUMENTS) {         \
        const ln_type Y = y_type == LN_F32 ? LN_F32 : LN_BF16, B = b_type == LN_F32 ? LN_F32 : LN_BF16;               \
        ln_typed_##name(x_type, Y, B, memory, step, images, unit, worker);                                            \
    }
#define LN_NAMED(name, which, suffix, y_type, b_type)                                                                 \
    void ln_kernel_##name##suffix(LN_ARGUMENTS) {                                                                     \
        ln_##which##_##name(y_type, b_type, memory, step, images, unit, worker);                                      \
    }
#define LN_INSTANCES_OF_BF16(name)                                                                                    \
    LN_SHARED(name, narrow, LN_BF16)                                                                                  \
    LN_NAMED(name, narrow, _bf16, LN_BF16, LN_BF16)                                                                   \
    LN_NAMED(name, narrow, _bf16_f32, LN_F32, LN_BF16)                                                                \
    LN_NAMED(name, narrow, _bf16_f32_f32, LN_F32, LN_F32)                                                             \
    LN_NAMED(name, narrow, _bf16_bf16_f32, LN_BF16, LN_F32)
#define LN_INSTANCES_FROM_F32(name)                                                                                   \
    LN_SHARED(name, wide, LN_F32)                                                                                     \
    LN_NAMED(name, wide, _f32_bf16, LN_BF16, LN_F32)                                                                  \
    LN_NAMED(name, wide, _f32_bf16_bf16, LN_BF16, LN_BF16)                                                            \
    LN_NAMED(name, wide, _f32_f32_bf16, LN_F32, LN_BF16)

static inline int64_t ln_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t ln_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ln_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* min(max(v, low), high); a NaN of v stays one (FMAX and FMIN return a NaN if either operand is one). */
static inline float32x4_t ln_clip(float32x4_t v, float32x4_t low, float32x4_t high) {
    return vminq_f32(vmaxq_f32(v, low), high);
}

/* The output rows or images [begin, end) of a unit: `step->rows` of them. */
typedef struct {
    int64_t begin, end;
} ln_range;

static inline ln_range ln_unit_rows(const ln_step *step, int64_t images, int64_t unit) {
    int64_t begin = unit * step->rows;
    return (ln_range){begin, ln_min(begin + step->rows, images * step->out_h)};
}

static inline ln_range ln_unit_images(const ln_step *step, int64_t images, int64_t unit) {
    int64_t begin = unit * step->rows;
    return (ln_range){begin, ln_min(begin + step->rows, images)};
}

static inline int64_t ln_x_row(const ln_step *step, int64_t image, int64_t outer, int64_t row) {
    return step->x + image * step->x_image + outer * step->x_outer + row * step->x_row;
}

static inline int64_t ln_y_row(const ln_step *step, int64_t image, int64_t outer, int64_t row) {
    return step->y + image * step->y_image + outer * step->y_outer + row * step->y_row;
}

static inline int64_t ln_b_row(const ln_step *step, int64_t image, int64_t outer, int64_t row) {
    return step->b + image * step->b_image + outer * step->b_outer + row * step->b_row;
}

/* Clears the halo beside the output pixels [begin, end), counted over all images; kernels/halo.py says how. */
static __attribute__((noinline, unused)) void ln_zero_halo(ln_type type, const ln_memory *memory, const ln_step *step,
                                                           int64_t begin, int64_t end, int64_t worker) {
    if (step->halo_top + step->halo_left + step->halo_bottom + step->halo_right == 0) return;
    int64_t left = step->halo_left * step->y_pixel, right = step->halo_right * step->y_pixel;
    for (int64_t row = ln_ceil_div(begin, step->out_w); row < ln_ceil_div(end, step->out_w); row++) {
        int64_t image = row / step->out_h, oh = row % step->out_h;
        int64_t start = step->y + worker * step->y_worker + image * step->y_image + oh * step->y_row;
        int64_t stop = start + step->out_w * step->y_pixel;
        int64_t top = oh == 0 ? step->halo_top * step->y_row : 0;
        int64_t bottom = oh == step->out_h - 1 ? step->halo_bottom * step->y_row : 0;
        for (int64_t i = start - top - left; i < start; i++) ln_set(type, memory, i, step->zero);
        for (int64_t i = stop; i < stop + bottom + right; i++) ln_set(type, memory, i, step->zero);
    }
}

#endif
