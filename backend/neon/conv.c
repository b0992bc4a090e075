/* Ordinary convolutions and dense layers, by implicit GEMM and by Winograd's F(4x4, 3x3), for every register tile. */
#include "blocks.h"

#define LN_TILE_UNROLL 4
#define LN_LINE 16 /* float32 in a cache line */

/* One call of the micro-kernel; kernels/gemm_tile.py has the contract. b: NULL without a residual. */
typedef struct {
    const float *x, *w, *bias, *b, *prefetch;
    float *y;
    const int32_t *x_rows, *y_rows, *b_rows, *taps;
    int64_t tap_count, depth, prefetch_step;
    int first, last;
    float low, high;
} ln_tile;

int64_t ln_gemm_units(const ln_step *step, int64_t images) {
    return ln_pixel_blocks(step, images).all * ln_ceil_div(step->panels, step->nc_panels);
}

/* The patches of a unit, counted over all images in N, row, column order. */
typedef struct {
    int64_t begin, count, per_image, columns;
} ln_patches;

static int64_t ln_patches_per_image(const ln_step *step) {
    return ln_ceil_div(step->out_h, PATCH_OUT) * ln_ceil_div(step->out_w, PATCH_OUT);
}

int64_t ln_winograd_units(const ln_step *step, int64_t images) {
    return ln_ceil_div(images * ln_patches_per_image(step), step->mc);
}

static ln_patches ln_unit_patches(const ln_step *step, int64_t images, int64_t unit) {
    int64_t per_image = ln_patches_per_image(step), begin = unit * step->mc;
    int64_t count = ln_min(step->mc, images * per_image - begin);
    return (ln_patches){begin, count, per_image, ln_ceil_div(step->out_w, PATCH_OUT)};
}

/* Where a patch is: image, first output row and column. */
typedef struct {
    int64_t image, row, column;
} ln_place;

static ln_place ln_place_of(const ln_patches *patches, int64_t patch) {
    int64_t image = (patches->begin + patch) / patches->per_image, rest = (patches->begin + patch) % patches->per_image;
    return (ln_place){image, rest / patches->columns * PATCH_OUT, rest % patches->columns * PATCH_OUT};
}

static inline float32x4_t ln_fma(float scale, float32x4_t a, float32x4_t b) {
    return vfmaq_f32(b, vdupq_n_f32(scale), a);
}

/* B^T d, six to six. */
static inline void ln_input_line(const float32x4_t d[6], float32x4_t out[6]) {
    float32x4_t even = ln_fma(-4, d[2], d[4]), odd = ln_fma(-4, d[1], d[3]);
    float32x4_t outer = vsubq_f32(d[4], d[2]), inner = vsubq_f32(d[3], d[1]);
    out[0] = ln_fma(4, d[0], ln_fma(-5, d[2], d[4]));
    out[1] = vaddq_f32(even, odd);
    out[2] = vsubq_f32(even, odd);
    out[3] = ln_fma(2, inner, outer);
    out[4] = ln_fma(-2, inner, outer);
    out[5] = ln_fma(4, d[1], ln_fma(-5, d[3], d[5]));
}

/* A^T m, six to four. */
static inline void ln_output_line(const float32x4_t m[6], float32x4_t out[4]) {
    float32x4_t sum1 = vaddq_f32(m[1], m[2]), difference1 = vsubq_f32(m[1], m[2]);
    float32x4_t sum2 = vaddq_f32(m[3], m[4]), difference2 = vsubq_f32(m[3], m[4]);
    out[0] = vaddq_f32(vaddq_f32(m[0], sum1), sum2);
    out[1] = ln_fma(2, difference2, difference1);
    out[2] = ln_fma(4, sum2, sum1);
    out[3] = vaddq_f32(ln_fma(8, difference2, difference1), m[5]);
}

/* U[point] = B^T d B for all patches and channels of a unit; u + point * u_point + patch * in_c. */
static void ln_transform_inputs(const float *arena, const ln_step *step, const ln_patches *patches, float *u,
                                int64_t u_point) {
    for (int64_t patch = 0; patch < patches->count; patch++) {
        ln_place place = ln_place_of(patches, patch);
        const float *x = arena + step->x + place.image * step->x_image + place.row * step->x_row +
                         place.column * step->x_pixel;
        for (int64_t c = 0; c < step->in_c; c += LN_LANES) {
            float32x4_t columns[6][6], d[6], line[6];
            for (int j = 0; j < 6; j++) {
                for (int i = 0; i < 6; i++) d[i] = vld1q_f32(x + i * step->x_row + j * step->x_pixel + c);
                ln_input_line(d, columns[j]);
            }
            for (int i = 0; i < 6; i++) {
                for (int j = 0; j < 6; j++) d[j] = columns[j][i];
                ln_input_line(d, line);
                for (int j = 0; j < 6; j++)
                    vst1q_f32(u + (6 * i + j) * u_point + patch * step->in_c + c, line[j]);
            }
        }
    }
}

/* Y = A^T M A of one panel, with bias, residual and clip, for all patches; what overhangs the picture is not kept. */
static void ln_transform_outputs(const ln_memory *memory, const ln_step *step, const ln_patches *patches,
                                 const float *m, int64_t m_point, int64_t width, int64_t n) {
    float32x4_t low = vdupq_n_f32(step->low), high = vdupq_n_f32(step->high);
    for (int64_t patch = 0; patch < patches->count; patch++) {
        ln_place place = ln_place_of(patches, patch);
        int64_t rows = ln_min(PATCH_OUT, step->out_h - place.row), width_out = ln_min(PATCH_OUT, step->out_w - place.column);
        float *y = memory->arena + step->y + place.image * step->y_image + place.row * step->y_row +
                   place.column * step->y_pixel + n;
        const float *b = memory->arena + step->b + place.image * step->b_image + place.row * step->b_row +
                         place.column * step->b_pixel + n;
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
                    if (step->has_b) sum = vaddq_f32(sum, vld1q_f32(b + i * step->b_row + j * step->b_pixel + c));
                    vst1q_f32(y + i * step->y_row + j * step->y_pixel + c, ln_clip(sum, low, high));
                }
            }
        }
    }
}

static void ln_clear_patches_halo(const ln_memory *memory, const ln_step *step, const ln_patches *patches, int64_t worker) {
    for (int64_t patch = 0; patch < patches->count; patch++) {
        ln_place place = ln_place_of(patches, patch);
        if (place.column == 0) {
            int64_t first = (place.image * step->out_h + place.row) * step->out_w;
            int64_t rows = ln_min(PATCH_OUT, step->out_h - place.row);
            ln_zero_halo(LN_F32, memory, step, first, first + rows * step->out_w, worker);
        }
    }
}

#define MR 6
#define NR 4
#include "tile.h"
#define MR 8
#define NR 3
#include "tile.h"
#define MR 7
#define NR 3
#include "tile.h"
#define MR 12
#define NR 2
#include "tile.h"
#define MR 12
#define NR 1
#include "tile.h"
#define MR 1
#define NR 8
#include "tile.h"
