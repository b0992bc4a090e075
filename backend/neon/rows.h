/* Rows of output, and the windows that they are made from. */
#ifndef LN_ROWS_H
#define LN_ROWS_H

#include "common.h"

/* Where a row of output begins in y and b, and the first pixel of its windows in x, in their elements. */
typedef struct {
    int64_t x, b, y;
    int64_t h0; /* row of x that the window begins in */
} ln_row;

static inline ln_row ln_row_at(const ln_step *step, int64_t row, int64_t worker) {
    int64_t image = row / step->out_h, oh = row % step->out_h;
    int64_t h0 = oh * step->stride_h - step->pad_top;
    return (ln_row){
        .x = worker * step->x_worker + ln_x_row(step, image, 0, h0) - step->pad_left * step->x_pixel,
        .b = ln_b_row(step, image, 0, oh),
        .y = worker * step->y_worker + ln_y_row(step, image, 0, oh),
        .h0 = h0,
    };
}

/* The taps [begin, end) of a window that fall inside [0, limit). */
static inline ln_range ln_window(int64_t start, int64_t size, int64_t dilation, int64_t limit) {
    int64_t first = start >= 0 ? 0 : ln_ceil_div(-start, dilation);
    int64_t inside = limit - start > 0 ? ln_ceil_div(limit - start, dilation) : 0;
    return (ln_range){first, ln_max(first, ln_min(size, inside))};
}

#endif
