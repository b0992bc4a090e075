/* How the work of convolutions is cut into units; kernels/conv_gemm.py and winograd.py. */
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

static inline int64_t ln_patches_per_image(const ln_step *step) {
    return ln_ceil_div(step->out_h, PATCH_OUT) * ln_ceil_div(step->out_w, PATCH_OUT);
}

/* Blocks of mc patches. */
static inline int64_t ln_patch_blocks(const ln_step *step, int64_t images) {
    return ln_ceil_div(images * ln_patches_per_image(step), step->mc);
}

#endif
