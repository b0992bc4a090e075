/* The caller's arrays, reached through their addresses; kernels/io.py says what each kernel does. */
#include "common.h"

static inline const float *ln_input(const ln_memory *memory, const ln_step *step) {
    return (const float *)(uintptr_t)memory->io[step->io];
}

/* What is stored of a number of the caller's: its quantisation, if y is of bytes; kernels/io.py. */
LN_INLINE float ln_stored(const ln_type Y, const ln_memory *memory, const ln_step *step, float value) {
    if (Y != LN_U8) return value;
    float steps = value / memory->weights[step->scale];
    if (!(steps > step->low)) steps = step->low;
    if (steps > step->high) steps = step->high;
    return rintf(steps) + memory->weights[step->scale + 1];
}

/* Runs a body for every row of the unit; x and y are the offsets of its first element. */
#define LN_OVER_IMPORT_ROWS(...)                                                                                      \
    do {                                                                                                              \
        ln_range rows = ln_unit_rows(step, images, unit);                                                             \
        for (int64_t row = rows.begin; row < rows.end; row++) {                                                       \
            int64_t image = row / step->out_h, h = row % step->out_h;                                                 \
            int64_t x = ln_x_row(step, image, 0, h), y = ln_y_row(step, image, 0, h);                                 \
            __VA_ARGS__                                                                                               \
        }                                                                                                             \
        ln_zero_halo(Y, memory, step, rows.begin * step->out_w, rows.end * step->out_w, worker);                          \
    } while (0)

LN_TYPED_KERNEL(import_f32) {
    const float *source = ln_input(memory, step);
    LN_OVER_IMPORT_ROWS({
        for (int64_t channel = 0; channel < step->out_c; channel++)
            for (int64_t pixel = 0; pixel < step->out_w; pixel++) {
                float value = source[x + channel * step->x_channel + pixel * step->x_pixel];
                ln_set(Y, memory, y + channel * step->y_channel + pixel * step->y_pixel,
                       ln_stored(Y, memory, step, value));
            }
    });
}
LN_INSTANCE(import_f32, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(import_f32, _f32_u8, LN_F32, LN_U8, LN_F32)
LN_INSTANCE(import_f32, _f32_bf16, LN_F32, LN_BF16, LN_F32)

LN_TYPED_KERNEL(import_runs) {
    const float *source = ln_input(memory, step);
    int64_t runs = step->out_w * step->out_c / step->length;
    LN_OVER_IMPORT_ROWS({
        for (int64_t run = 0; run < runs; run++) {
            const float *from = source + x + run * step->x_pixel;
            int64_t to = y + run * step->y_pixel;
            if (Y == LN_F32)
                memcpy(memory->arena + to, from, (size_t)step->length * sizeof(float));
            else
                for (int64_t i = 0; i < step->length; i++)
                    ln_set(Y, memory, to + i, ln_stored(Y, memory, step, from[i]));
        }
    });
}
LN_INSTANCE(import_runs, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(import_runs, _f32_u8, LN_F32, LN_U8, LN_F32)
LN_INSTANCE(import_runs, _f32_bf16, LN_F32, LN_BF16, LN_F32)

/* [a[0], b[0], c[0], a[1], b[1], c[1] ...] to the arena, as float32 or bfloat16. */
LN_INLINE void ln_store_interleaved(const ln_type type, const ln_memory *memory, int64_t at, float32x4x3_t v) {
    if (type == LN_F32) {
        vst3q_f32(memory->arena + at, v);
    } else {
        uint16x4x3_t halves = {
            {ln_rounded_halves(v.val[0]), ln_rounded_halves(v.val[1]), ln_rounded_halves(v.val[2])}};
        uint16_t together[3 * LN_LANES];
        vst3_u16(together, halves);
        memcpy((ln_half *)memory->arena + at, together, sizeof together);
    }
}

LN_TYPED_KERNEL(import_planes_3) {
    const float *source = ln_input(memory, step);
    int64_t whole = Y == LN_U8 ? 0 : step->out_w - step->out_w % LN_LANES;
    LN_OVER_IMPORT_ROWS({
        const float *planes = source + x;
        for (int64_t pixel = 0; pixel < whole; pixel += LN_LANES) {
            float32x4x3_t colours = {{vld1q_f32(planes + pixel), vld1q_f32(planes + step->x_channel + pixel),
                                      vld1q_f32(planes + 2 * step->x_channel + pixel)}};
            ln_store_interleaved(Y, memory, y + 3 * pixel, colours);
        }
        for (int64_t pixel = whole; pixel < step->out_w; pixel++)
            for (int64_t channel = 0; channel < 3; channel++)
                ln_set(Y, memory, y + 3 * pixel + channel,
                       ln_stored(Y, memory, step, planes[channel * step->x_channel + pixel]));
    });
}
LN_INSTANCE(import_planes_3, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(import_planes_3, _f32_u8, LN_F32, LN_U8, LN_F32)
LN_INSTANCE(import_planes_3, _f32_bf16, LN_F32, LN_BF16, LN_F32)

/* The table is of elements of y. */
LN_TYPED_KERNEL(import_u8) {
    const uint8_t *source = (const uint8_t *)(uintptr_t)memory->io[step->io];
    const float *levels = memory->weights + step->weight;
    LN_OVER_IMPORT_ROWS({
        for (int64_t pixel = 0; pixel < step->out_w; pixel++)
            for (int64_t channel = 0; channel < step->out_c; channel++) {
                int64_t to = y + pixel * step->y_pixel + channel * step->y_channel;
                int64_t level = channel * 256 + source[x + pixel * step->x_pixel + channel];
                memcpy(ln_address(Y, memory, to), (const uint8_t *)levels + level * ln_bytes_of(Y), (size_t)ln_bytes_of(Y));
            }
    });
}
LN_INSTANCE(import_u8, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(import_u8, _f32_u8, LN_F32, LN_U8, LN_F32)
LN_INSTANCE(import_u8, _f32_bf16, LN_F32, LN_BF16, LN_F32)

/* By step->option: float32, int64, uint8, or int8 that was stored with 128 added. */
LN_INLINE void ln_write(int64_t option, void *target, int64_t at, float value) {
    switch (option) {
    case 0: ((float *)target)[at] = value; break;
    case 1: ((int64_t *)target)[at] = (int64_t)value; break;
    case 2: ((uint8_t *)target)[at] = (uint8_t)value; break;
    default: ((int8_t *)target)[at] = (int8_t)(value - 128); break;
    }
}

LN_TYPED_KERNEL(export) {
    void *target = (void *)(uintptr_t)memory->io[step->io];
    ln_range range = ln_unit_images(step, images, unit);
    for (int64_t image = range.begin; image < range.end; image++)
        for (int64_t outer = 0; outer < step->outer; outer++)
            for (int64_t row = 0; row < step->out_h; row++) {
                int64_t x0 = ln_x_row(step, image, outer, row), y0 = ln_y_row(step, image, outer, row);
                for (int64_t channel = 0; channel < step->out_c; channel++)
                    for (int64_t pixel = 0; pixel < step->out_w; pixel++)
                        ln_write(step->option, target, y0 + channel * step->y_channel + pixel * step->y_pixel,
                                 ln_get(X, memory, x0 + channel * step->x_channel + pixel * step->x_pixel));
            }
}
LN_INSTANCE(export, , LN_F32, LN_F32, LN_F32)
LN_INSTANCE(export, _u8, LN_U8, LN_U8, LN_U8)
LN_INSTANCE(export, _bf16, LN_BF16, LN_BF16, LN_BF16)

LN_KERNEL(export_runs) {
    float *target = (float *)(uintptr_t)memory->io[step->io];
    int64_t runs = step->out_w * step->out_c / step->length;
    ln_range range = ln_unit_images(step, images, unit);
    for (int64_t image = range.begin; image < range.end; image++)
        for (int64_t row = 0; row < step->out_h; row++) {
            int64_t x = ln_x_row(step, image, 0, row), y = ln_y_row(step, image, 0, row);
            for (int64_t run = 0; run < runs; run++)
                memcpy(target + y + run * step->y_pixel, memory->arena + x + run * step->x_pixel,
                       (size_t)step->length * sizeof(float));
        }
}
