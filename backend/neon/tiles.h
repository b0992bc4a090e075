/* What all register tiles of float32 sums share: the arguments of a micro-kernel, units of Winograd, its transforms.
 *
 * Included by conv.c and conv_bf16.c, which define the element of x: LN_X (its ln_type), ln_x (as C has it),
 * LN_POINT_A and LN_POINT_B (where Winograd's F(4x4, 3x3) is evaluated; step.h). A word is four bytes, one or two
 * elements.
 */
#ifndef LN_TILES_H
#define LN_TILES_H

#include "blocks.h"

#define LN_TILE_UNROLL 4
#define LN_LINE_BYTES 64
#define LN_LINE 16 /* words in a cache line */
#define LN_PER_WORD (4 / (int64_t)sizeof(ln_x))

/* One call of the micro-kernel; kernels/gemm_tile.py has the contract. y, b: offsets in elements of y_type, b_type;
 * sums: where MR rows of NR vectors wait between blocks of K if y is not float32. Depth is in elements of x. */
typedef struct {
    const ln_memory *memory;
    const ln_x *x;
    const float *w, *bias, *prefetch;
    float *sums;
    int64_t y, b;
    const int32_t *x_rows, *y_rows, *b_rows, *taps;
    int64_t tap_count, depth, prefetch_step;
    int has_b, first, last;
    float low, high;
} ln_tile;

static inline ln_x *ln_elements(const ln_memory *memory, int64_t at) { return (ln_x *)(void *)memory->arena + at; }

static inline int64_t ln_words(int64_t depth) { return ln_ceil_div(depth, LN_PER_WORD); }

/* The patches of a unit, counted over all images in N, row, column order. */
typedef struct {
    int64_t begin, count, per_image, columns;
} ln_patches;

static inline ln_patches ln_block_patches(const ln_step *step, int64_t images, int64_t block) {
    int64_t per_image = ln_patches_per_image(step), begin = block * step->mc;
    int64_t count = ln_min(step->mc, images * per_image - begin);
    return (ln_patches){begin, count, per_image, ln_ceil_div(step->out_w, PATCH_OUT)};
}

/* Where a patch is: image, first output row and column. */
typedef struct {
    int64_t image, row, column;
} ln_place;

static inline ln_place ln_place_of(const ln_patches *patches, int64_t patch) {
    int64_t image = (patches->begin + patch) / patches->per_image, rest = (patches->begin + patch) % patches->per_image;
    return (ln_place){image, rest / patches->columns * PATCH_OUT, rest % patches->columns * PATCH_OUT};
}

/* scale * a + b, without a multiplication if that is by 1 or -1. */
LN_INLINE float32x4_t ln_fma(const float scale, float32x4_t a, float32x4_t b) {
    if (scale == 1) return vaddq_f32(b, a);
    if (scale == -1) return vsubq_f32(b, a);
    return vfmaq_f32(b, vdupq_n_f32(scale), a);
}

LN_INLINE float32x4_t ln_scaled(const float scale, float32x4_t a) { return scale == 1 ? a : vmulq_n_f32(a, scale); }

/* B^T d, six to six. */
LN_INLINE void ln_input_line(const float32x4_t d[6], float32x4_t out[6]) {
    const float a = LN_POINT_A, b = LN_POINT_B, aa = a * a, bb = b * b;
    float32x4_t even_a = ln_fma(-bb, d[2], d[4]), odd_a = ln_fma(-bb, d[1], d[3]);
    float32x4_t even_b = ln_fma(-aa, d[2], d[4]), odd_b = ln_fma(-aa, d[1], d[3]);
    out[0] = ln_fma(aa * bb, d[0], ln_fma(-aa - bb, d[2], d[4]));
    out[1] = ln_fma(a, odd_a, even_a);
    out[2] = ln_fma(-a, odd_a, even_a);
    out[3] = ln_fma(b, odd_b, even_b);
    out[4] = ln_fma(-b, odd_b, even_b);
    out[5] = ln_fma(aa * bb, d[1], ln_fma(-aa - bb, d[3], d[5]));
}

/* A^T m, six to four. */
LN_INLINE void ln_output_line(const float32x4_t m[6], float32x4_t out[4]) {
    const float a = LN_POINT_A, b = LN_POINT_B;
    float32x4_t sum_a = vaddq_f32(m[1], m[2]), difference_a = vsubq_f32(m[1], m[2]);
    float32x4_t sum_b = vaddq_f32(m[3], m[4]), difference_b = vsubq_f32(m[3], m[4]);
    out[0] = vaddq_f32(vaddq_f32(m[0], sum_a), sum_b);
    out[1] = ln_fma(b, difference_b, ln_scaled(a, difference_a));
    out[2] = ln_fma(b * b, sum_b, ln_scaled(a * a, sum_a));
    out[3] = vaddq_f32(ln_fma(b * b * b, difference_b, ln_scaled(a * a * a, difference_a)), m[5]);
}

/* U[point] = B^T d B for all patches and channels of a unit, in elements of x from offset u on:
 * u + point * u_point + patch * in_c. */
static void ln_transform_inputs(const ln_memory *memory, const ln_step *step, const ln_patches *patches, int64_t u,
                                int64_t u_point) {
    for (int64_t patch = 0; patch < patches->count; patch++) {
        ln_place place = ln_place_of(patches, patch);
        int64_t x = step->x + place.image * step->x_image + place.row * step->x_row + place.column * step->x_pixel;
        for (int64_t c = 0; c < step->in_c; c += LN_LANES) {
            float32x4_t columns[6][6], d[6], line[6];
            for (int j = 0; j < 6; j++) {
                for (int i = 0; i < 6; i++) d[i] = ln_load(LN_X, memory, x + i * step->x_row + j * step->x_pixel + c);
                ln_input_line(d, columns[j]);
            }
            for (int i = 0; i < 6; i++) {
                for (int j = 0; j < 6; j++) d[j] = columns[j][i];
                ln_input_line(d, line);
                for (int j = 0; j < 6; j++)
                    ln_store(LN_X, memory, u + (6 * i + j) * u_point + patch * step->in_c + c, line[j]);
            }
        }
    }
}

/* Y = A^T M A of one panel, with bias, residual and clip, for all patches; what overhangs the picture is not kept. */
LN_INLINE void ln_transform_outputs(const ln_type Y, const ln_type B, const ln_memory *memory, const ln_step *step,
                                    const ln_patches *patches, const float *m, int64_t m_point, int64_t width,
                                    int64_t n) {
    float32x4_t low = vdupq_n_f32(step->low), high = vdupq_n_f32(step->high);
    for (int64_t patch = 0; patch < patches->count; patch++) {
        ln_place place = ln_place_of(patches, patch);
        int64_t rows = ln_min(PATCH_OUT, step->out_h - place.row);
        int64_t width_out = ln_min(PATCH_OUT, step->out_w - place.column);
        int64_t y = ln_y_row(step, place.image, 0, place.row) + place.column * step->y_pixel + n;
        int64_t b = ln_b_row(step, place.image, 0, place.row) + place.column * step->b_pixel + n;
        for (int64_t c = 0; c < width; c += LN_LANES) {
            float32x4_t columns[6][4], line[6], out[4];
            float32x4_t bias = vld1q_f32(memory->weights + step->bias + n + c);
            for (int j = 0; j < 6; j++) {
                for (int i = 0; i < 6; i++) line[i] = vld1q_f32(m + (6 * i + j) * m_point + patch * width + c);
                ln_output_line(line, columns[j]);
            }
            for (int i = 0; i < rows; i++) {
                for (int j = 0; j < 6; j++) line[j] = columns[j][i];
                ln_output_line(line, out);
                for (int j = 0; j < width_out; j++) {
                    float32x4_t sum = vaddq_f32(out[j], bias);
                    if (step->has_b)
                        sum = vaddq_f32(sum, ln_load(B, memory, b + i * step->b_row + j * step->b_pixel + c));
                    ln_store(Y, memory, y + i * step->y_row + j * step->y_pixel + c, ln_clip(sum, low, high));
                }
            }
        }
    }
}

static void ln_clear_patches_halo(const ln_type Y, const ln_memory *memory, const ln_step *step,
                                  const ln_patches *patches, int64_t worker) {
    for (int64_t patch = 0; patch < patches->count; patch++) {
        ln_place place = ln_place_of(patches, patch);
        if (place.column == 0) {
            int64_t first = (place.image * step->out_h + place.row) * step->out_w;
            int64_t rows = ln_min(PATCH_OUT, step->out_h - place.row);
            ln_zero_halo(Y, memory, step, first, first + rows * step->out_w, worker);
        }
    }
}

#endif
