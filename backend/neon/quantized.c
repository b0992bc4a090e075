/* Between real numbers and quantised ones, row by row; kernels/quantized.py says what each kernel computes. */
#include "rows.h"

/* rint(min(max(v, low), high)), halves to even; a NaN becomes low. */
LN_INLINE float32x4_t ln_rounded(float32x4_t v, float32x4_t low, float32x4_t high) {
    float32x4_t raised = vbslq_f32(vcgtq_f32(v, low), v, low);
    return vrndnq_f32(vbslq_f32(vcltq_f32(raised, high), raised, high));
}

/* Runs a body for every vector of channels; x, b and y are its offsets. */
#define LN_OVER_VECTORS(...)                                                                                          \
    do {                                                                                                              \
        ln_range rows = ln_unit_rows(step, images, unit);                                                             \
        for (int64_t row = rows.begin; row < rows.end; row++) {                                                       \
            int64_t image = row / step->out_h, oh = row % step->out_h;                                                \
            for (int64_t ow = 0; ow < step->out_w; ow++)                                                              \
                for (int64_t c = 0; c < step->out_c; c += LN_LANES) {                                                 \
                    int64_t x = ln_x_row(step, image, 0, oh) + ow * step->x_pixel + c;                                \
                    int64_t y = ln_y_row(step, image, 0, oh) + ow * step->y_pixel + c;                                \
                    __attribute__((unused)) int64_t b = ln_b_row(step, image, 0, oh) + ow * step->b_pixel + c;        \
                    __VA_ARGS__                                                                                       \
                }                                                                                                     \
        }                                                                                                             \
        ln_zero_halo(Y, memory, step, rows.begin * step->out_w, rows.end * step->out_w, worker);                      \
    } while (0)

LN_TYPED_KERNEL(quantize) {
    const float *scale = memory->weights + step->scale, *zero = memory->weights + step->bias;
    LN_OVER_VECTORS({
        float32x4_t z = vld1q_f32(zero + c), steps = vdivq_f32(ln_load(X, memory, x), vld1q_f32(scale + c));
        float32x4_t low = vsubq_f32(vdupq_n_f32(0), z), high = vsubq_f32(vdupq_n_f32(255), z);
        ln_store(Y, memory, y, vaddq_f32(ln_rounded(steps, low, high), z));
    });
}
LN_INSTANCE(quantize, _f32_u8, LN_F32, LN_U8, LN_F32)

LN_TYPED_KERNEL(dequantize) {
    const float *scale = memory->weights + step->scale, *zero = memory->weights + step->bias;
    LN_OVER_VECTORS({
        float32x4_t steps = vsubq_f32(ln_load(X, memory, x), vld1q_f32(zero + c));
        ln_store(Y, memory, y, vmulq_f32(steps, vld1q_f32(scale + c)));
    });
}
LN_INSTANCE(dequantize, _u8_f32, LN_U8, LN_F32, LN_U8)

LN_TYPED_KERNEL(quantized_add) {
    const float *n = memory->weights + step->numbers; /* zx, sx, zb, sb, zero */
    float32x4_t low = vdupq_n_f32(step->low), high = vdupq_n_f32(step->high);
    LN_OVER_VECTORS({
        float32x4_t first = vmulq_f32(vsubq_f32(ln_load(X, memory, x), vdupq_n_f32(n[0])), vdupq_n_f32(n[1]));
        float32x4_t second = vmulq_f32(vsubq_f32(ln_load(B, memory, b), vdupq_n_f32(n[2])), vdupq_n_f32(n[3]));
        ln_store(Y, memory, y, vaddq_f32(ln_rounded(vaddq_f32(first, second), low, high), vdupq_n_f32(n[4])));
    });
}
LN_INSTANCE(quantized_add, _u8, LN_U8, LN_U8, LN_U8)

LN_TYPED_KERNEL(quantized_average) {
    ln_range rows = ln_unit_rows(step, images, unit);
    const float *n = memory->weights + step->numbers; /* zx, factor, zero */
    float32x4_t low = vdupq_n_f32(step->low), high = vdupq_n_f32(step->high);
    int64_t dr = step->dilation_h * step->x_row, ds = step->dilation_w * step->x_pixel;
    for (int64_t row = rows.begin; row < rows.end; row++) {
        ln_row at = ln_row_at(step, row, worker);
        ln_range r = ln_window(at.h0, step->kernel_h, step->dilation_h, step->in_h);
        for (int64_t ow = 0; ow < step->out_w; ow++) {
            int64_t w0 = ow * step->stride_w - step->pad_left;
            ln_range s = ln_window(w0, step->kernel_w, step->dilation_w, step->in_w);
            float32x4_t zeros = vdupq_n_f32((float)((r.end - r.begin) * (s.end - s.begin)) * n[0]);
            int64_t x = at.x + ow * step->stride_w * step->x_pixel;
            for (int64_t c = 0; c < step->out_c; c += LN_LANES) {
                float32x4_t total = vdupq_n_f32(0);
                for (int64_t i = r.begin; i < r.end; i++)
                    for (int64_t j = s.begin; j < s.end; j++)
                        total = vaddq_f32(total, ln_load(X, memory, x + i * dr + j * ds + c));
                float32x4_t average = vmulq_f32(vsubq_f32(total, zeros), vdupq_n_f32(n[1]));
                ln_store(Y, memory, at.y + ow * step->y_pixel + c,
                         vaddq_f32(ln_rounded(average, low, high), vdupq_n_f32(n[2])));
            }
        }
    }
    ln_zero_halo(Y, memory, step, rows.begin * step->out_w, rows.end * step->out_w, worker);
}
LN_INSTANCE(quantized_average, _u8, LN_U8, LN_U8, LN_U8)
