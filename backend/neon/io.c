/* The caller's arrays, reached through their addresses; kernels/io.py says what each kernel does. */
#include "common.h"

static inline const float *ln_input(const ln_memory *memory, const ln_step *step) {
    return (const float *)(uintptr_t)memory->io[step->io];
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
        ln_zero_halo(memory->arena, step, rows.begin * step->out_w, rows.end * step->out_w, worker);                          \
    } while (0)

LN_KERNEL(import_f32) {
    const float *source = ln_input(memory, step);
    LN_OVER_IMPORT_ROWS({
        for (int64_t channel = 0; channel < step->out_c; channel++)
            for (int64_t pixel = 0; pixel < step->out_w; pixel++)
                memory->arena[y + channel * step->y_channel + pixel * step->y_pixel] =
                    source[x + channel * step->x_channel + pixel * step->x_pixel];
    });
}

LN_KERNEL(import_runs) {
    const float *source = ln_input(memory, step);
    int64_t runs = step->out_w * step->out_c / step->length;
    LN_OVER_IMPORT_ROWS({
        for (int64_t run = 0; run < runs; run++)
            memcpy(memory->arena + y + run * step->y_pixel, source + x + run * step->x_pixel,
                   (size_t)step->length * sizeof(float));
    });
}

LN_KERNEL(import_planes_3) {
    const float *source = ln_input(memory, step);
    int64_t whole = step->out_w - step->out_w % LN_LANES;
    LN_OVER_IMPORT_ROWS({
        const float *planes = source + x;
        for (int64_t pixel = 0; pixel < whole; pixel += LN_LANES) {
            float32x4x3_t colours = {{vld1q_f32(planes + pixel), vld1q_f32(planes + step->x_channel + pixel),
                                      vld1q_f32(planes + 2 * step->x_channel + pixel)}};
            vst3q_f32(memory->arena + y + 3 * pixel, colours);
        }
        for (int64_t pixel = whole; pixel < step->out_w; pixel++)
            for (int64_t channel = 0; channel < 3; channel++)
                memory->arena[y + 3 * pixel + channel] = planes[channel * step->x_channel + pixel];
    });
}

LN_KERNEL(import_u8) {
    const uint8_t *source = (const uint8_t *)(uintptr_t)memory->io[step->io];
    const float *levels = memory->weights + step->weight;
    LN_OVER_IMPORT_ROWS({
        for (int64_t pixel = 0; pixel < step->out_w; pixel++)
            for (int64_t channel = 0; channel < step->out_c; channel++)
                memory->arena[y + pixel * step->y_pixel + channel * step->y_channel] =
                    levels[channel * 256 + source[x + pixel * step->x_pixel + channel]];
    });
}

LN_KERNEL(export) {
    const float *arena = memory->arena;
    float *floats = (float *)(uintptr_t)memory->io[step->io];
    int64_t *integers = (int64_t *)(uintptr_t)memory->io[step->io];
    ln_range range = ln_unit_images(step, images, unit);
    for (int64_t image = range.begin; image < range.end; image++)
        for (int64_t outer = 0; outer < step->outer; outer++)
            for (int64_t row = 0; row < step->out_h; row++) {
                int64_t x0 = ln_x_row(step, image, outer, row), y0 = ln_y_row(step, image, outer, row);
                for (int64_t channel = 0; channel < step->out_c; channel++)
                    for (int64_t pixel = 0; pixel < step->out_w; pixel++) {
                        float value = arena[x0 + channel * step->x_channel + pixel * step->x_pixel];
                        int64_t y = y0 + channel * step->y_channel + pixel * step->y_pixel;
                        if (step->option)
                            integers[y] = (int64_t)value;
                        else
                            floats[y] = value;
                    }
            }
}

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
