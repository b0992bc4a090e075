/* Kernels that go over a picture row by row with vectors of channels; kernels/rows.py says what each computes. */
#include "rows.h"

/* Pixels of a window's row whose distance from its first one waits in a register; those further on have a pointer of
 * their own for each so many. */
enum { NEAR = 8 };

/* The micro-kernel: MR neighbouring output pixels, of so many vectors of channels; windows that overlap share their
 * loads. x, y, b: of the first pixels. Addresses are settled before the loop, all but one addition a pointer. */
LN_INLINE void ln_tiles_3x3(const int mr, const int stride, const ln_type X, const ln_type Y, const ln_type B,
                            const ln_step *step, const uint8_t *x, const float *w, const float *bias, uint8_t *y,
                            const uint8_t *b, int64_t vectors) {
    const int columns = (mr - 1) * stride + 3, bases = (columns + NEAR - 1) / NEAR;
    const int64_t y_pixel = step->y_pixel * ln_bytes_of(Y), b_pixel = step->b_pixel * ln_bytes_of(B);
    const float32x4_t low = vdupq_n_f32(step->low), high = vdupq_n_f32(step->high);
    const uint8_t *places[3][3];
    int64_t near[NEAR];
    LN_UNROLLED for (int column = 0; column < NEAR; column++) {
        near[column] = column * step->x_pixel * ln_bytes_of(X);
        if (column) __asm__("" : "+r"(near[column])); /* not to be worked out again */
    }
    LN_UNROLLED for (int r = 0; r < 3; r++)
        LN_UNROLLED for (int base = 0; base < bases; base++)
            places[r][base] = x + (r * step->x_row + base * NEAR * step->x_pixel) * ln_bytes_of(X);
    const int has_b = step->has_b != 0;
    for (; vectors > 0; vectors--) {
        float32x4_t sums[8];
        LN_UNROLLED for (int m = 0; m < mr; m++) sums[m] = vld1q_f32(bias);
        LN_UNROLLED for (int r = 0; r < 3; r++) {
            float32x4_t taps[3];
            LN_UNROLLED for (int s = 0; s < 3; s++) taps[s] = vld1q_f32(w + (3 * r + s) * LN_LANES);
            LN_UNROLLED for (int column = 0; column < columns; column++) {
                float32x4_t value = ln_load_from(X, places[r][column / NEAR] + near[column % NEAR]);
                LN_UNROLLED for (int m = 0; m < mr; m++) {
                    int s = column - m * stride;
                    if (s >= 0 && s < 3) sums[m] = vfmaq_f32(sums[m], value, taps[s]);
                }
            }
            LN_UNROLLED for (int base = 0; base < bases; base++) places[r][base] += LN_LANES * ln_bytes_of(X);
        }
        if (__builtin_expect(has_b, 0)) {
            LN_UNROLLED for (int m = 0; m < mr; m++) sums[m] = vaddq_f32(sums[m], ln_load_from(B, b + m * b_pixel));
        }
        LN_UNROLLED for (int m = 0; m < mr; m++) ln_store_to(Y, y + m * y_pixel, ln_clip(sums[m], low, high));
        w += 9 * LN_LANES, bias += LN_LANES;
        y += LN_LANES * ln_bytes_of(Y), b += LN_LANES * ln_bytes_of(B);
    }
}

/* One unit, by tiles of MR pixels; the last tile of a row overlaps its neighbour. */
LN_INLINE void ln_depthwise_3x3(const int mr, const int stride, const ln_type X, const ln_type Y, const ln_type B,
                                LN_ARGUMENTS) {
    ln_range rows = ln_unit_rows(step, images, unit);
    const float *weight = memory->weights + step->weight, *bias = memory->weights + step->bias;
    int64_t out_w = step->out_w, nc = step->nc_panels * LN_LANES;
    for (int64_t jc = 0; jc < step->out_c; jc += nc)
        for (int64_t row = rows.begin; row < rows.end; row++) {
            ln_row at = ln_row_at(step, row, worker);
            for (int64_t first = 0; first < out_w; first += mr) {
                int64_t ow = ln_min(first, out_w - mr);
                ln_tiles_3x3(mr, stride, X, Y, B, step,
                             ln_address(X, memory, at.x + ow * stride * step->x_pixel + jc), weight + jc * 9, bias + jc,
                             ln_address(Y, memory, at.y + ow * step->y_pixel + jc),
                             ln_address(B, memory, at.b + ow * step->b_pixel + jc),
                             ln_ceil_div(ln_min(nc, step->out_c - jc), LN_LANES));
            }
        }
    ln_zero_halo(Y, memory, step, rows.begin * out_w, rows.end * out_w, worker);
}

#define LN_DEPTHWISE_3X3(mr)                                                                                          \
    LN_TYPED_KERNEL(depthwise_3x3_##mr##x1) {                                                                         \
        if (step->stride_w == 1)                                                                                      \
            ln_depthwise_3x3(mr, 1, X, Y, B, memory, step, images, unit, worker);                                     \
        else                                                                                                          \
            ln_depthwise_3x3(mr, 2, X, Y, B, memory, step, images, unit, worker);                                     \
    }                                                                                                                 \
    LN_INSTANCE(depthwise_3x3_##mr##x1, , LN_F32, LN_F32, LN_F32)                                                     \
    LN_INSTANCES_OF_BF16(depthwise_3x3_##mr##x1)
LN_DEPTHWISE_3X3(1)
LN_DEPTHWISE_3X3(2)
LN_DEPTHWISE_3X3(3)
LN_DEPTHWISE_3X3(4)
LN_DEPTHWISE_3X3(5)
LN_DEPTHWISE_3X3(6)
LN_DEPTHWISE_3X3(7)
LN_DEPTHWISE_3X3(8)

LN_TYPED_KERNEL(depthwise) {
    ln_range rows = ln_unit_rows(step, images, unit);
    const float *bias = memory->weights + step->bias;
    float32x4_t low = vdupq_n_f32(step->low), high = vdupq_n_f32(step->high);
    int64_t kernel_h = step->kernel_h, kernel_w = step->kernel_w, out_w = step->out_w, out_c = step->out_c;
    int64_t dr = step->dilation_h * step->x_row, ds = step->dilation_w * step->x_pixel;
    int64_t dx = step->stride_w * step->x_pixel;
    for (int64_t row = rows.begin; row < rows.end; row++) {
        ln_row at = ln_row_at(step, row, worker);
        for (int64_t ow = 0; ow < out_w; ow++) {
            for (int64_t c = 0; c < out_c; c += LN_LANES) {
                float32x4_t sum = vld1q_f32(bias + c);
                const float *w = memory->weights + step->weight + c * kernel_h * kernel_w;
                for (int64_t r = 0; r < kernel_h; r++)
                    for (int64_t s = 0; s < kernel_w; s++, w += LN_LANES)
                        sum = vfmaq_f32(sum, ln_load(X, memory, at.x + r * dr + s * ds + ow * dx + c), vld1q_f32(w));
                if (step->has_b) sum = vaddq_f32(sum, ln_load(B, memory, at.b + ow * step->b_pixel + c));
                ln_store(Y, memory, at.y + ow * step->y_pixel + c, ln_clip(sum, low, high));
            }
        }
    }
    ln_zero_halo(Y, memory, step, rows.begin * out_w, rows.end * out_w, worker);
}
LN_INSTANCE(depthwise, , LN_F32, LN_F32, LN_F32)
LN_INSTANCES_OF_BF16(depthwise)

LN_TYPED_KERNEL(max_pool) {
    ln_range rows = ln_unit_rows(step, images, unit);
    int64_t dr = step->dilation_h * step->x_row, ds = step->dilation_w * step->x_pixel;
    for (int64_t row = rows.begin; row < rows.end; row++) {
        ln_row at = ln_row_at(step, row, worker);
        ln_range r = ln_window(at.h0, step->kernel_h, step->dilation_h, step->in_h);
        for (int64_t ow = 0; ow < step->out_w; ow++) {
            int64_t w0 = ow * step->stride_w - step->pad_left;
            ln_range s = ln_window(w0, step->kernel_w, step->dilation_w, step->in_w);
            int64_t x = at.x + ow * step->stride_w * step->x_pixel;
            for (int64_t c = 0; c < step->out_c; c += LN_LANES) {
                float32x4_t best = vdupq_n_f32(-INFINITY);
                for (int64_t i = r.begin; i < r.end; i++)
                    for (int64_t j = s.begin; j < s.end; j++)
                        best = vmaxq_f32(best, ln_load(X, memory, x + i * dr + j * ds + c)); /* a NaN of either stays */
                ln_store(Y, memory, at.y + ow * step->y_pixel + c, best);
            }
        }
    }
    ln_zero_halo(Y, memory, step, rows.begin * step->out_w, rows.end * step->out_w, worker);
}
LN_INSTANCE(max_pool, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(max_pool, _u8_u8, LN_U8, LN_U8, LN_U8)
LN_INSTANCE(max_pool, _bf16, LN_BF16, LN_BF16, LN_BF16)
LN_INSTANCE(max_pool, _bf16_f32, LN_BF16, LN_F32, LN_BF16)

LN_TYPED_KERNEL(average_pool) {
    ln_range rows = ln_unit_rows(step, images, unit);
    const int32_t *row_counts = memory->tables + step->y_rows, *column_counts = memory->tables + step->x_rows;
    int64_t dr = step->dilation_h * step->x_row, ds = step->dilation_w * step->x_pixel;
    for (int64_t row = rows.begin; row < rows.end; row++) {
        ln_row at = ln_row_at(step, row, worker);
        ln_range r = ln_window(at.h0, step->kernel_h, step->dilation_h, step->in_h);
        for (int64_t ow = 0; ow < step->out_w; ow++) {
            int64_t w0 = ow * step->stride_w - step->pad_left;
            ln_range s = ln_window(w0, step->kernel_w, step->dilation_w, step->in_w);
            double count = (double)row_counts[row % step->out_h] * column_counts[ow];
            float32x4_t scale = vdupq_n_f32((float)(1.0 / count));
            int64_t x = at.x + ow * step->stride_w * step->x_pixel;
            for (int64_t c = 0; c < step->out_c; c += LN_LANES) {
                float32x4_t total = vdupq_n_f32(0);
                for (int64_t i = r.begin; i < r.end; i++)
                    for (int64_t j = s.begin; j < s.end; j++)
                        total = vaddq_f32(total, ln_load(X, memory, x + i * dr + j * ds + c));
                ln_store(Y, memory, at.y + ow * step->y_pixel + c, vmulq_f32(total, scale));
            }
        }
    }
    ln_zero_halo(Y, memory, step, rows.begin * step->out_w, rows.end * step->out_w, worker);
}
LN_INSTANCE(average_pool, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(average_pool, _bf16, LN_BF16, LN_BF16, LN_BF16)
LN_INSTANCE(average_pool, _bf16_f32, LN_BF16, LN_F32, LN_BF16)

/* Means of `vectors` vectors of channels from c on: sums in the order of pixels. */
LN_INLINE void ln_average_channels(const int vectors, const ln_type X, const ln_type Y, const ln_memory *memory,
                                   const ln_step *step, int64_t image, int64_t c) {
    float32x4_t sums[4], scale = vdupq_n_f32((float)(1.0 / (double)(step->in_h * step->in_w)));
    LN_UNROLLED for (int v = 0; v < vectors; v++) sums[v] = vdupq_n_f32(0);
    for (int64_t h = 0; h < step->in_h; h++)
        for (int64_t w = 0; w < step->in_w; w++) {
            int64_t x = ln_x_row(step, image, 0, h) + w * step->x_pixel + c;
            LN_UNROLLED for (int v = 0; v < vectors; v++)
                sums[v] = vaddq_f32(sums[v], ln_load(X, memory, x + v * LN_LANES));
        }
    LN_UNROLLED for (int v = 0; v < vectors; v++)
        ln_store(Y, memory, step->y + image * step->y_image + c + v * LN_LANES, vmulq_f32(sums[v], scale));
}

LN_TYPED_KERNEL(global_average) {
    ln_range range = ln_unit_rows(step, images, unit);
    for (int64_t image = range.begin; image < range.end; image++) {
        int64_t c = 0;
        for (; c + 4 * LN_LANES <= step->out_c; c += 4 * LN_LANES) ln_average_channels(4, X, Y, memory, step, image, c);
        for (; c < step->out_c; c += LN_LANES) ln_average_channels(1, X, Y, memory, step, image, c);
    }
    ln_zero_halo(Y, memory, step, range.begin, range.end, worker);
}
LN_INSTANCE(global_average, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(global_average, _bf16, LN_BF16, LN_BF16, LN_BF16)
LN_INSTANCE(global_average, _bf16_f32, LN_BF16, LN_F32, LN_BF16)

LN_TYPED_KERNEL(affine) {
    ln_range rows = ln_unit_rows(step, images, unit);
    const float *weight = memory->weights + step->weight, *bias = memory->weights + step->bias;
    float32x4_t low = vdupq_n_f32(step->low), high = vdupq_n_f32(step->high);
    for (int64_t row = rows.begin; row < rows.end; row++) {
        int64_t image = row / step->out_h, oh = row % step->out_h;
        int64_t x = worker * step->x_worker + ln_x_row(step, image, 0, oh);
        int64_t y = worker * step->y_worker + ln_y_row(step, image, 0, oh);
        for (int64_t ow = 0; ow < step->out_w; ow++)
            for (int64_t c = 0; c < step->out_c; c += LN_LANES) {
                float32x4_t value = ln_load(X, memory, x + ow * step->x_pixel + c);
                if (step->option) value = vfmaq_f32(vld1q_f32(bias + c), value, vld1q_f32(weight + c));
                ln_store(Y, memory, y + ow * step->y_pixel + c, ln_clip(value, low, high));
            }
    }
    ln_zero_halo(Y, memory, step, rows.begin * step->out_w, rows.end * step->out_w, worker);
}
LN_INSTANCE(affine, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(affine, _u8, LN_U8, LN_U8, LN_U8)
LN_INSTANCE(affine, _bf16, LN_BF16, LN_BF16, LN_BF16)
LN_INSTANCE(affine, _bf16_f32, LN_BF16, LN_F32, LN_BF16)
