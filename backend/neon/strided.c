/* Kernels over arbitrary strides; kernels/strided.py says what each computes. */
#include "common.h"

/* Runs a body for every image of the unit, outer, row, pixel and channel; x, y and b are offsets into the arena. */
#define LN_OVER_STRIDES(...)                                                                                          \
    do {                                                                                                              \
        ln_range range = ln_unit_images(step, images, unit);                                                          \
        for (int64_t image = range.begin; image < range.end; image++)                                                 \
            for (int64_t outer = 0; outer < step->outer; outer++)                                                     \
                for (int64_t row = 0; row < step->out_h; row++)                                                       \
                    for (int64_t pixel = 0; pixel < step->out_w; pixel++)                                             \
                        for (int64_t channel = 0; channel < step->out_c; channel++) {                                 \
                            int64_t x = ln_x_row(step, image, outer, row) + pixel * step->x_pixel +                   \
                                        channel * step->x_channel;                                                    \
                            int64_t y = ln_y_row(step, image, outer, row) + pixel * step->y_pixel +                   \
                                        channel * step->y_channel;                                                    \
                            __VA_ARGS__                                                                                   \
                        }                                                                                             \
    } while (0)

LN_TYPED_KERNEL(copy) {
    LN_OVER_STRIDES(ln_set(Y, memory, y, ln_get(X, memory, x)););
}
LN_INSTANCE(copy, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(copy, _u8, LN_U8, LN_U8, LN_U8)
LN_INSTANCE(copy, _bf16, LN_BF16, LN_BF16, LN_BF16)
LN_INSTANCE(copy, _bf16_f32, LN_BF16, LN_F32, LN_BF16)
LN_INSTANCE(copy, _f32_bf16, LN_F32, LN_BF16, LN_F32)

LN_TYPED_KERNEL(fill) {
    ln_range range = ln_unit_images(step, images, unit);
    for (int64_t image = range.begin; image < range.end; image++)
        for (int64_t i = 0; i < step->length; i++) ln_set(Y, memory, step->y + image * step->y_image + i, step->low);
}
LN_INSTANCE(fill, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(fill, _f32_u8, LN_F32, LN_U8, LN_F32)
LN_INSTANCE(fill, _u8, LN_U8, LN_U8, LN_U8)
LN_INSTANCE(fill, _f32_bf16, LN_F32, LN_BF16, LN_F32)

static inline float ln_binary(int64_t option, float a, float b) {
    switch (option) {
    case 0: return a + b;
    case 1: return a - b;
    case 2: return a * b;
    default: return a / b;
    }
}

LN_TYPED_KERNEL(binary) {
    LN_OVER_STRIDES({
        int64_t b = ln_b_row(step, image, outer, row) + pixel * step->b_pixel + channel * step->b_channel;
        float value = ln_binary(step->option, ln_get(X, memory, x), ln_get(B, memory, b));
        if (value < step->low) value = step->low;
        if (value > step->high) value = step->high;
        ln_set(Y, memory, y, value);
    });
    int64_t pixels = step->out_h * step->out_w;
    ln_range range = ln_unit_images(step, images, unit);
    ln_zero_halo(Y, memory, step, range.begin * pixels, range.end * pixels, worker);
}
LN_INSTANCE(binary, , LN_F32, LN_F32, LN_F32)
LN_INSTANCES_OF_BF16(binary)
LN_INSTANCES_FROM_F32(binary)

/* Of kernels that work on their result in place y is float32. */

LN_TYPED_KERNEL(mean) {
    float *arena = memory->arena;
    LN_OVER_STRIDES(arena[y] += ln_get(X, memory, x) * step->low;);
}
LN_INSTANCE(mean, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(mean, _bf16_f32, LN_BF16, LN_F32, LN_BF16)

LN_TYPED_KERNEL(softmax) {
    float *arena = memory->arena;
    int64_t dx = step->x_axis, dy = step->y_axis, length = step->length;
    LN_OVER_STRIDES({
        float top = ln_get(X, memory, x);
        for (int64_t i = 1; i < length; i++) {
            float value = ln_get(X, memory, x + i * dx);
            top = value > top ? value : top;
        }
        double total = 0;
        for (int64_t i = 0; i < length; i++) {
            arena[y + i * dy] = expf(ln_get(X, memory, x + i * dx) - top);
            total += arena[y + i * dy];
        }
        float scale = (float)(1.0 / total);
        for (int64_t i = 0; i < length; i++) arena[y + i * dy] *= scale;
    });
}
LN_INSTANCE(softmax, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(softmax, _bf16_f32, LN_BF16, LN_F32, LN_BF16)

LN_TYPED_KERNEL(argmax) {
    int64_t dx = step->x_axis, last = step->option;
    LN_OVER_STRIDES({
        int64_t best = 0;
        for (int64_t i = 1; i < step->length; i++) {
            float value = ln_get(X, memory, x + i * dx), top = ln_get(X, memory, x + best * dx);
            int larger = value > top || (isnan(value) && !isnan(top));
            int equal = value == top || (isnan(value) && isnan(top));
            if (larger || (last && equal)) best = i;
        }
        ln_set(Y, memory, y, (float)best);
    });
}
LN_INSTANCE(argmax, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(argmax, _bf16_f32, LN_BF16, LN_F32, LN_BF16)
