/* Convolutions and dense layers of quantised values: implicit GEMM by dot products of bytes, and depthwise windows. */
#include "blocks.h"
#include "byte_dots.h"
#include "requantize.h"
#include "rows.h"

/* One call of the micro-kernel. Depth is in bytes, whole words. sums: where MR rows of NR vectors wait between blocks
 * of K; starts: what they begin with in the first one. */
typedef struct {
    const uint8_t *x;
    const int8_t *w;
    const int32_t *starts, *sums, *x_rows, *taps;
    int64_t tap_count, depth;
    int first;
} ln_byte_tile;

#define MR 6
#define NR 4
#include "tile_u8.h"
#define MR 8
#define NR 3
#include "tile_u8.h"
#define MR 7
#define NR 3
#include "tile_u8.h"
#define MR 12
#define NR 2
#include "tile_u8.h"
#define MR 12
#define NR 1
#include "tile_u8.h"
#define MR 1
#define NR 8
#include "tile_u8.h"

/* Any window, pixel by pixel. Weights are packed [channel vector][r][s][lanes], in bytes. */
LN_TYPED_KERNEL(depthwise_u8) {
    ln_range rows = ln_unit_rows(step, images, unit);
    ln_requantizer requantizer = ln_requantizer_of(memory, step->numbers, step->stages);
    const uint8_t *pixels = (const uint8_t *)memory->arena;
    int64_t dr = step->dilation_h * step->x_row, ds = step->dilation_w * step->x_pixel;
    for (int64_t row = rows.begin; row < rows.end; row++) {
        ln_row at = ln_row_at(step, row, worker);
        for (int64_t ow = 0; ow < step->out_w; ow++)
            for (int64_t c = 0; c < step->out_c; c += LN_LANES) {
                int32_t sums[LN_LANES];
                memcpy(sums, (const int32_t *)memory->weights + step->bias + c, sizeof sums);
                const int8_t *w = (const int8_t *)(memory->weights + step->weight) + c * step->kernel_h * step->kernel_w;
                for (int64_t r = 0; r < step->kernel_h; r++)
                    for (int64_t s = 0; s < step->kernel_w; s++, w += LN_LANES) {
                        const uint8_t *x = pixels + at.x + ow * step->stride_w * step->x_pixel + r * dr + s * ds + c;
                        for (int lane = 0; lane < LN_LANES; lane++) sums[lane] += x[lane] * w[lane];
                    }
                ln_requantize(&requantizer, Y, B, memory, vld1q_s32(sums),
                              vld1q_f32(memory->weights + step->scale + c), step->has_b,
                              at.b + ow * step->b_pixel + c, at.y + ow * step->y_pixel + c);
            }
    }
    ln_zero_halo(Y, memory, step, rows.begin * step->out_w, rows.end * step->out_w, worker);
}
LN_INSTANCE(depthwise_u8, _u8, LN_U8, LN_U8, LN_U8)
LN_INSTANCE(depthwise_u8, _u8_f32, LN_U8, LN_F32, LN_U8)

/* 3x3 windows by blocks of 16 channels; the last one overlaps its neighbour. Weights are packed [block][column][channel][row and a zero],
 * bias and scales [block][channel], channels in the order of `unpacked_channels` in kernels/step.py: of 16 as they come. */
LN_KERNEL(depthwise_3x3_u8) {
    enum { BLOCK = 16, COLUMN = BLOCK * 4 };
    ln_range rows = ln_unit_rows(step, images, unit);
    ln_requantizer requantizer = ln_requantizer_of(memory, step->numbers, step->stages);
    int64_t blocks = ln_ceil_div(step->out_c, BLOCK);
    for (int64_t row = rows.begin; row < rows.end; row++) {
        ln_row at = ln_row_at(step, row, worker);
        for (int64_t ow = 0; ow < step->out_w; ow++)
            for (int64_t block = 0; block < blocks; block++) {
                int64_t c = ln_min(block * BLOCK, step->out_c - BLOCK), n = block * BLOCK;
                const int32_t *bias = (const int32_t *)memory->weights + step->bias + n;
                const int8_t *w = (const int8_t *)(memory->weights + step->weight) + block * 3 * COLUMN;
                int32x4_t sums[4];
                for (int v = 0; v < 4; v++) sums[v] = vld1q_s32(bias + v * LN_LANES);
                for (int s = 0; s < 3; s++) {
                    int8x16x4_t taps = vld4q_s8(w + s * COLUMN);
                    for (int r = 0; r < 3; r++) {
                        uint8x16_t x = vld1q_u8((const uint8_t *)memory->arena + at.x + r * step->x_row +
                                                (ow * step->stride_w + s) * step->x_pixel + c);
                        int16x8_t x_low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x)));
                        int16x8_t x_high = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(x)));
                        int16x8_t w_low = vmovl_s8(vget_low_s8(taps.val[r])), w_high = vmovl_s8(vget_high_s8(taps.val[r]));
                        sums[0] = vmlal_s16(sums[0], vget_low_s16(x_low), vget_low_s16(w_low));
                        sums[1] = vmlal_s16(sums[1], vget_high_s16(x_low), vget_high_s16(w_low));
                        sums[2] = vmlal_s16(sums[2], vget_low_s16(x_high), vget_low_s16(w_high));
                        sums[3] = vmlal_s16(sums[3], vget_high_s16(x_high), vget_high_s16(w_high));
                    }
                }
                for (int v = 0; v < 4; v++)
                    ln_requantize(&requantizer, LN_U8, LN_U8, memory, sums[v],
                                  vld1q_f32(memory->weights + step->scale + n + v * LN_LANES), 0, 0,
                                  at.y + ow * step->y_pixel + c + v * LN_LANES);
            }
    }
    ln_zero_halo(LN_U8, memory, step, rows.begin * step->out_w, rows.end * step->out_w, worker);
}
