/* How the work of implicit GEMM is cut into units; kernels/conv_gemm.py. */
#ifndef LN_BLOCKS_H
#define LN_BLOCKS_H

#include "common.h"

/* Blocks of mc pixels in a full group, and in all groups. */
typedef struct {
    int64_t per_group, all;
} ln_blocks;

static inline ln_blocks ln_pixel_blocks(const ln_step *step, int64_t images) {
    int64_t pixels = step->out_h * step->out_w;
    int64_t per_group = ln_ceil_div(step->group_images * pixels, step->mc);
    int64_t groups = images / step->group_images;
    int64_t rest = (images - groups * step->group_images) * pixels;
    return (ln_blocks){per_group, groups * per_group + ln_ceil_div(rest, step->mc)};
}

#endif
