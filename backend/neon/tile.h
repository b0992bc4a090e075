/* The micro-kernel of implicit GEMM, and the two convolutions that call it, for one register tile.
 *
 * Included once per tile by conv.c and conv_bf16.c, with MR and NR defined, and beside what tiles.h wants LN_SUMS, the
 * file that adds the products up. kernels/gemm_tile.py, conv_gemm.py and winograd.py say what is computed and in which
 * order.
 */

#define TILE_PASTE(prefix, mr, nr) prefix##mr##x##nr
#define TILE_NAME_(prefix, mr, nr) TILE_PASTE(prefix, mr, nr)
#define TILE_NAME(prefix) TILE_NAME_(prefix, MR, NR)
#define WIDTH (NR * LN_LANES)

#include LN_SUMS

LN_INLINE void TILE_NAME(store_tile_)(const ln_type Y, const ln_tile *t, float32x4_t acc[MR][NR]) {
    LN_UNROLLED for (int m = 0; m < MR; m++) {
        int64_t y = t->y + t->y_rows[m];
        LN_UNROLLED for (int n = 0; n < NR; n++) ln_store(Y, t->memory, y + n * LN_LANES, acc[m][n]);
    }
}

static __attribute__((noinline)) void TILE_NAME(gemm_tile_)(const ln_tile *t, ln_type y_type, ln_type b_type) {
    const ln_type Y = LN_ONE_OF(y_type), B = LN_ONE_OF(b_type);
    float32x4_t acc[MR][NR];
    for (int m = 0; m < MR; m++) {
        const uint8_t *y = ln_address(Y, t->memory, t->y + t->y_rows[m]);
        for (int n = 0; n < WIDTH * ln_bytes_of(Y); n += LN_LINE_BYTES) __builtin_prefetch(y + n, 1, 3);
    }
    if (t->has_b)
        for (int m = 0; m < MR; m++) {
            const uint8_t *b = ln_address(B, t->memory, t->b + t->b_rows[m]);
            for (int n = 0; n < WIDTH * ln_bytes_of(B); n += LN_LINE_BYTES) __builtin_prefetch(b + n, 0, 3);
        }
    if (t->first)
        LN_UNROLLED for (int n = 0; n < NR; n++) {
            float32x4_t bias = vld1q_f32(t->bias + n * LN_LANES);
            LN_UNROLLED for (int m = 0; m < MR; m++) acc[m][n] = bias;
        }
    else
        LN_UNROLLED for (int m = 0; m < MR; m++) {
            const float *sums = Y == LN_F32 ? t->memory->arena + t->y + t->y_rows[m] : t->sums + m * WIDTH;
            LN_UNROLLED for (int n = 0; n < NR; n++) acc[m][n] = vld1q_f32(sums + n * LN_LANES);
        }

    TILE_NAME(add_products_)(t, acc);

    if (t->last) {
        float32x4_t low = vdupq_n_f32(t->low), high = vdupq_n_f32(t->high);
        if (t->has_b)
            LN_UNROLLED for (int m = 0; m < MR; m++) {
                int64_t b = t->b + t->b_rows[m];
                LN_UNROLLED for (int n = 0; n < NR; n++)
                    acc[m][n] = vaddq_f32(acc[m][n], ln_load(B, t->memory, b + n * LN_LANES));
            }
        LN_UNROLLED for (int m = 0; m < MR; m++)
            LN_UNROLLED for (int n = 0; n < NR; n++) acc[m][n] = ln_clip(acc[m][n], low, high);
    } else if (Y != LN_F32) {
        LN_UNROLLED for (int m = 0; m < MR; m++)
            LN_UNROLLED for (int n = 0; n < NR; n++) vst1q_f32(t->sums + m * WIDTH + n * LN_LANES, acc[m][n]);
        return;
    }
    if (Y == LN_F32)
        TILE_NAME(store_tile_)(LN_F32, t, acc);
    else
        TILE_NAME(store_tile_)(LN_BF16, t, acc);
}

/* One unit: mc output pixels (within one group of images) x nc_panels panels of output channels. */
LN_TYPED_KERNEL_OF(TILE_NAME(conv_gemm_)) {
    ln_blocks count = ln_pixel_blocks(step, images);
    int64_t jc = unit / count.all, ic = unit % count.all;
    int64_t group = ic / count.per_group, block = ic % count.per_group;
    int64_t image0 = group * step->group_images;
    int64_t group_pixels = ln_min(step->group_images, images - image0) * step->out_h * step->out_w;
    int64_t m_begin = block * step->mc, m_end = ln_min(m_begin + step->mc, group_pixels);
    int64_t panel_begin = jc * step->nc_panels, panel_end = ln_min(panel_begin + step->nc_panels, step->panels);
    const ln_x *x = ln_elements(memory, step->x + worker * step->x_worker + image0 * step->x_image);
    int64_t y = step->y + worker * step->y_worker + image0 * step->y_image, b = step->b + image0 * step->b_image;
    float *waiting = memory->arena + step->scratch + worker * step->scratch_size;
    const float *weights = memory->weights;
    const int32_t *tables = memory->tables;
    ln_tile tile = {.memory = memory, .has_b = step->has_b != 0, .low = step->low, .high = step->high};

    if (!step->panels_outside) {
        tile.x = x;
        tile.taps = tables + step->taps, tile.tap_count = step->tap_count, tile.depth = step->depth;
        tile.first = tile.last = 1;
        for (int64_t m = m_begin; m < m_end; m += MR) {
            tile.x_rows = tables + step->x_rows + m;
            tile.y_rows = tables + step->y_rows + m;
            tile.b_rows = tables + step->b_rows + m;
            for (int64_t panel = panel_begin; panel < panel_end; panel++) {
                int64_t n = panel * WIDTH;
                tile.w = tile.prefetch = weights + step->weight + panel * step->panel;
                tile.y = y + n, tile.b = b + n, tile.bias = weights + step->bias + n;
                TILE_NAME(gemm_tile_)(&tile, Y, B);
            }
        }
    } else {
        int64_t tiles = ln_ceil_div(group_pixels, MR);
        tile.prefetch_step = LN_TILE_UNROLL * WIDTH / tiles;
        for (int64_t panel = panel_begin; panel < panel_end; panel++) {
            int64_t n = panel * WIDTH;
            tile.w = weights + step->weight + panel * step->panel;
            tile.y = y + n, tile.b = b + n, tile.bias = weights + step->bias + n;
            for (int64_t tap = 0; tap < step->tap_count; tap += step->kc_taps) {
                tile.taps = tables + step->taps + tap;
                tile.tap_count = ln_min(step->kc_taps, step->tap_count - tap);
                for (int64_t k = 0; k < step->depth; k += step->kc_depth) {
                    tile.depth = ln_min(step->kc_depth, step->depth - k);
                    tile.x = x + k;
                    int64_t block_size = tile.tap_count * ln_words(tile.depth) * WIDTH;
                    tile.first = tap + k == 0;
                    tile.last = tap + tile.tap_count == step->tap_count && k + tile.depth == step->depth;
                    for (int64_t m = m_begin; m < m_end; m += MR) {
                        tile.x_rows = tables + step->x_rows + m;
                        tile.y_rows = tables + step->y_rows + m;
                        tile.b_rows = tables + step->b_rows + m;
                        tile.sums = waiting + (m - m_begin) * WIDTH;
                        tile.prefetch = tile.w + block_size + m / MR * (block_size / tiles);
                        TILE_NAME(gemm_tile_)(&tile, Y, B);
                    }
                    tile.w += block_size;
                }
            }
        }
    }
    if (jc == 0) {
        int64_t before = image0 * step->out_h * step->out_w;
        ln_zero_halo(Y, memory, step, before + m_begin, before + m_end, worker);
    }
}

/* One unit: mc patches, counted over all images, x nc_panels panels, through Winograd's three phases. */
LN_TYPED_KERNEL_OF(TILE_NAME(conv_winograd_)) {
    int64_t blocks = ln_patch_blocks(step, images), jc = unit / blocks;
    ln_patches patches = ln_block_patches(step, images, unit % blocks);
    int64_t panel_begin = jc * step->nc_panels, panel_end = ln_min(panel_begin + step->nc_panels, step->panels);
    int64_t rounded = ln_ceil_div(step->mc, MR) * MR;
    int64_t scratch = step->scratch + worker * step->scratch_size;
    int64_t u_point = rounded * step->in_c, m_point = rounded * WIDTH;
    int64_t u = scratch * LN_PER_WORD, m = scratch + PATCH_POINTS * u_point / LN_PER_WORD;
    ln_transform_inputs(memory, step, &patches, u, u_point);

    int64_t block = ln_words(step->depth) * WIDTH, tiles = ln_ceil_div(patches.count, MR);
    ln_tile tile = {
        .memory = memory,
        .taps = memory->tables + step->taps,
        .tap_count = 1,
        .depth = step->depth,
        .bias = memory->weights + step->zeros,
        .first = 1,
        .w = memory->weights + step->weight + panel_begin * PATCH_POINTS * block,
        .prefetch_step = LN_TILE_UNROLL * WIDTH / tiles,
    };
    for (int64_t panel = panel_begin; panel < panel_end; panel++) {
        for (int64_t point = 0; point < PATCH_POINTS; point++) {
            tile.x = ln_elements(memory, u + point * u_point);
            tile.y = m + point * m_point;
            for (int64_t row = 0; row < patches.count; row += MR) {
                tile.x_rows = memory->tables + step->x_rows + row;
                tile.y_rows = memory->tables + step->y_rows + row;
                tile.prefetch = tile.w + block + row / MR * (block / tiles);
                TILE_NAME(gemm_tile_)(&tile, LN_F32, LN_F32);
            }
            tile.w += block;
        }
        ln_transform_outputs(Y, B, memory, step, &patches, memory->arena + m, m_point, WIDTH, panel * WIDTH);
    }
    if (jc == 0) ln_clear_patches_halo(Y, memory, step, &patches, worker);
}

LN_TILE_INSTANCES(TILE_NAME(conv_gemm_))
LN_TILE_INSTANCES(TILE_NAME(conv_winograd_))

#undef TILE_PASTE
#undef TILE_NAME_
#undef TILE_NAME
#undef WIDTH
#undef MR
#undef NR
