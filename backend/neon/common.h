/* What kernels share: vectors, loops over rows and images, the halo. */
#ifndef LN_COMMON_H
#define LN_COMMON_H

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "abi.h"

#define LN_LANES 4
#define LN_UNROLLED _Pragma("GCC unroll 64")
#define LN_KERNEL(name)                                                                                               \
    void ln_kernel_##name(const ln_memory *memory, const ln_step *step, int64_t images, int64_t unit,                 \
                          __attribute__((unused)) int64_t worker)

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
static inline void ln_zero_halo(float *arena, const ln_step *step, int64_t begin, int64_t end, int64_t worker) {
    if (step->halo_top + step->halo_left + step->halo_bottom + step->halo_right == 0) return;
    int64_t left = step->halo_left * step->y_pixel, right = step->halo_right * step->y_pixel;
    for (int64_t row = ln_ceil_div(begin, step->out_w); row < ln_ceil_div(end, step->out_w); row++) {
        int64_t image = row / step->out_h, oh = row % step->out_h;
        int64_t start = step->y + worker * step->y_worker + image * step->y_image + oh * step->y_row;
        int64_t stop = start + step->out_w * step->y_pixel;
        int64_t top = oh == 0 ? step->halo_top * step->y_row : 0;
        int64_t bottom = oh == step->out_h - 1 ? step->halo_bottom * step->y_row : 0;
        memset(arena + start - top - left, 0, (size_t)(top + left) * sizeof(float));
        memset(arena + stop, 0, (size_t)(bottom + right) * sizeof(float));
    }
}

#endif
