/* What the micro-kernels for bytes that no plan uses share: the arguments of a tile, and the kernel around it. */
#ifndef LN_DOTS_H
#define LN_DOTS_H

#include "common.h"

#define LN_UNROLL 4

/* One call of a micro-kernel: MR rows by NR vectors. groups: of depth, as many elements as one instruction adds up. */
typedef struct {
    const void *x, *w;
    const float *bias;
    float *y;
    const int32_t *x_rows, *y_rows, *taps;
    int64_t tap_count, groups;
} ln_dots;

/* All tiles of a step, as one unit. GROUP_BYTES: of x that make a group. */
#define LN_DOT_KERNEL(NAME, TILE, X, GROUP_BYTES, ROWS, VECTORS)                                                      \
    void NAME(const ln_memory *memory, const ln_step *step, int64_t images, __attribute__((unused)) int64_t unit,     \
              __attribute__((unused)) int64_t worker) {                                                               \
        int64_t pixels = images * step->out_h * step->out_w;                                                          \
        for (int64_t m = 0; m < pixels; m += ROWS)                                                                    \
            for (int64_t panel = 0; panel < step->panels; panel++) {                                                  \
                ln_dots tile = {                                                                                      \
                    .x = (const X *)(const void *)memory->arena + step->x,                                            \
                    .w = memory->weights + step->weight + panel * step->panel,                                        \
                    .bias = memory->weights + step->bias + panel * VECTORS * LN_LANES,                                \
                    .y = memory->arena + step->y + panel * VECTORS * LN_LANES,                                        \
                    .x_rows = memory->tables + step->x_rows + m,                                                      \
                    .y_rows = memory->tables + step->y_rows + m,                                                      \
                    .taps = memory->tables + step->taps,                                                              \
                    .tap_count = step->tap_count,                                                                     \
                    .groups = ln_ceil_div(step->depth * (int64_t)sizeof(X), GROUP_BYTES),                             \
                };                                                                                                    \
                TILE(&tile);                                                                                          \
            }                                                                                                         \
    }

#endif
