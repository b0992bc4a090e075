/* The micro-kernel of implicit GEMM, and the two convolutions that call it, for one register tile.
 *
 * Included once per tile by conv.c, with MR and NR defined. kernels/gemm_tile.py, conv_gemm.py and winograd.py say what
 * is computed and in which order; each output element is one chain of fused multiply-adds here, too.
 *
 * A multiply-add takes its scalar from lane 0 of a register that a plain scalar load has filled: LD1R, which compilers
 * would choose, needs a slot of the vector units on Arm's cores, and so would take it from the multiply-adds. Hence the
 * one instruction of assembly. The file is compiled without scheduling before register allocation (build.py): the order
 * below is the one that fits 32 registers.
 */

#define TILE_PASTE(prefix, mr, nr) prefix##mr##x##nr
#define TILE_NAME_(prefix, mr, nr) TILE_PASTE(prefix, mr, nr)
#define TILE_NAME(prefix) TILE_NAME_(prefix, MR, NR)
#define WIDTH (NR * LN_LANES)

/* Adds depth [k, k + 1) of all rows; w points at the weights of that depth. */
static inline __attribute__((always_inline)) void TILE_NAME(multiply_)(float32x4_t acc[MR][NR], const float *const *x,
                                                                       int64_t k, const float *w) {
    float32x4_t b[NR];
    LN_UNROLLED for (int n = 0; n < NR; n++) b[n] = vld1q_f32(w + n * LN_LANES);
    LN_UNROLLED for (int m = 0; m < MR; m++) {
        float32x4_t a;
        __asm__("ldr %s0, %1" : "=w"(a) : "m"(x[m][k]));
        LN_UNROLLED for (int n = 0; n < NR; n++) acc[m][n] = vfmaq_laneq_f32(acc[m][n], b[n], a, 0);
    }
}

#if NR == 1
/* Adds depth [k, k + 4) of all rows, four rows at a time. With one vector of weights, loads would outnumber the
 * multiply-adds; here one load of a row feeds four. */
static inline __attribute__((always_inline)) void TILE_NAME(multiply_four_)(float32x4_t acc[MR][NR],
                                                                            const float *const *x, int64_t k,
                                                                            const float *w) {
    float32x4_t b[LN_TILE_UNROLL];
    LN_UNROLLED for (int u = 0; u < LN_TILE_UNROLL; u++) b[u] = vld1q_f32(w + u * LN_LANES);
    LN_UNROLLED for (int group = 0; group < MR; group += 4) {
        float32x4_t a[4];
        LN_UNROLLED for (int m = 0; m < 4; m++) a[m] = vld1q_f32(x[group + m] + k);
        LN_UNROLLED for (int m = 0; m < 4; m++) acc[group + m][0] = vfmaq_laneq_f32(acc[group + m][0], b[0], a[m], 0);
        LN_UNROLLED for (int m = 0; m < 4; m++) acc[group + m][0] = vfmaq_laneq_f32(acc[group + m][0], b[1], a[m], 1);
        LN_UNROLLED for (int m = 0; m < 4; m++) acc[group + m][0] = vfmaq_laneq_f32(acc[group + m][0], b[2], a[m], 2);
        LN_UNROLLED for (int m = 0; m < 4; m++) acc[group + m][0] = vfmaq_laneq_f32(acc[group + m][0], b[3], a[m], 3);
    }
}
#endif

static __attribute__((noinline)) void TILE_NAME(gemm_tile_)(const ln_tile *t) {
    float32x4_t acc[MR][NR];
    float *y[MR];
    for (int m = 0; m < MR; m++) {
        y[m] = t->y + t->y_rows[m];
        for (int n = 0; n < WIDTH; n += LN_LINE) __builtin_prefetch(y[m] + n, 1, 3);
    }
    if (t->b)
        for (int m = 0; m < MR; m++)
            for (int n = 0; n < WIDTH; n += LN_LINE) __builtin_prefetch(t->b + t->b_rows[m] + n, 0, 3);
    if (t->first)
        LN_UNROLLED for (int n = 0; n < NR; n++) {
            float32x4_t bias = vld1q_f32(t->bias + n * LN_LANES);
            LN_UNROLLED for (int m = 0; m < MR; m++) acc[m][n] = bias;
        }
    else
        LN_UNROLLED for (int m = 0; m < MR; m++)
            LN_UNROLLED for (int n = 0; n < NR; n++) acc[m][n] = vld1q_f32(y[m] + n * LN_LANES);

    const float *w = t->w, *prefetch = t->prefetch;
    const int64_t depth = t->depth, prefetch_step = t->prefetch_step;
    for (int64_t tap = 0; tap < t->tap_count; tap++) {
        const float *x[MR], *window = t->x + t->taps[tap];
        LN_UNROLLED for (int m = 0; m < MR; m++) x[m] = window + t->x_rows[m];
        int64_t k = 0;
        for (; k + LN_TILE_UNROLL <= depth; k += LN_TILE_UNROLL) {
#if NR == 1
            TILE_NAME(multiply_four_)(acc, x, k, w);
#else
            LN_UNROLLED for (int u = 0; u < LN_TILE_UNROLL; u++) TILE_NAME(multiply_)(acc, x, k + u, w + u * WIDTH);
#endif
            w += LN_TILE_UNROLL * WIDTH;
            __builtin_prefetch(prefetch, 0, 2);
            __builtin_prefetch(prefetch + LN_LINE, 0, 2);
            prefetch += prefetch_step;
        }
        for (; k < depth; k++) {
            TILE_NAME(multiply_)(acc, x, k, w);
            w += WIDTH;
        }
    }

    if (t->last) {
        float32x4_t low = vdupq_n_f32(t->low), high = vdupq_n_f32(t->high);
        if (t->b)
            LN_UNROLLED for (int m = 0; m < MR; m++) {
                const float *b = t->b + t->b_rows[m];
                LN_UNROLLED for (int n = 0; n < NR; n++)
                    acc[m][n] = vaddq_f32(acc[m][n], vld1q_f32(b + n * LN_LANES));
            }
        LN_UNROLLED for (int m = 0; m < MR; m++)
            LN_UNROLLED for (int n = 0; n < NR; n++) acc[m][n] = ln_clip(acc[m][n], low, high);
    }
    LN_UNROLLED for (int m = 0; m < MR; m++) {
        float *row = t->y + t->y_rows[m];
        LN_UNROLLED for (int n = 0; n < NR; n++) vst1q_f32(row + n * LN_LANES, acc[m][n]);
    }
}

/* One unit: mc output pixels (within one group of images) x nc_panels panels of output channels. */
void TILE_NAME(ln_kernel_conv_gemm_)(const ln_memory *memory, const ln_step *step, int64_t images, int64_t unit,
                                     int64_t worker) {
    ln_blocks count = ln_pixel_blocks(step, images);
    int64_t jc = unit / count.all, ic = unit % count.all;
    int64_t group = ic / count.per_group, block = ic % count.per_group;
    int64_t image0 = group * step->group_images;
    int64_t group_pixels = ln_min(step->group_images, images - image0) * step->out_h * step->out_w;
    int64_t m_begin = block * step->mc, m_end = ln_min(m_begin + step->mc, group_pixels);
    int64_t panel_begin = jc * step->nc_panels, panel_end = ln_min(panel_begin + step->nc_panels, step->panels);
    const float *x = memory->arena + step->x + worker * step->x_worker + image0 * step->x_image;
    float *y = memory->arena + step->y + worker * step->y_worker + image0 * step->y_image;
    const float *b = memory->arena + step->b + image0 * step->b_image;
    const float *weights = memory->weights;
    const int32_t *tables = memory->tables;
    ln_tile tile = {.low = step->low, .high = step->high};

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
                tile.y = y + n, tile.bias = weights + step->bias + n, tile.b = step->has_b ? b + n : NULL;
                TILE_NAME(gemm_tile_)(&tile);
            }
        }
    } else {
        int64_t tiles = ln_ceil_div(group_pixels, MR);
        tile.prefetch_step = LN_TILE_UNROLL * WIDTH / tiles;
        for (int64_t panel = panel_begin; panel < panel_end; panel++) {
            int64_t n = panel * WIDTH;
            tile.w = weights + step->weight + panel * step->panel;
            tile.y = y + n, tile.bias = weights + step->bias + n, tile.b = step->has_b ? b + n : NULL;
            for (int64_t tap = 0; tap < step->tap_count; tap += step->kc_taps) {
                tile.taps = tables + step->taps + tap;
                tile.tap_count = ln_min(step->kc_taps, step->tap_count - tap);
                for (int64_t k = 0; k < step->depth; k += step->kc_depth) {
                    tile.depth = ln_min(step->kc_depth, step->depth - k);
                    tile.x = x + k;
                    int64_t block_size = tile.tap_count * tile.depth * WIDTH;
                    tile.first = tap + k == 0;
                    tile.last = tap + tile.tap_count == step->tap_count && k + tile.depth == step->depth;
                    for (int64_t m = m_begin; m < m_end; m += MR) {
                        tile.x_rows = tables + step->x_rows + m;
                        tile.y_rows = tables + step->y_rows + m;
                        tile.b_rows = tables + step->b_rows + m;
                        tile.prefetch = tile.w + block_size + m / MR * (block_size / tiles);
                        TILE_NAME(gemm_tile_)(&tile);
                    }
                    tile.w += block_size;
                }
            }
        }
    }
    if (jc == 0) {
        int64_t before = image0 * step->out_h * step->out_w;
        ln_zero_halo(LN_F32, memory, step, before + m_begin, before + m_end, worker);
    }
}

/* One unit: mc patches, counted over all images, through Winograd's three phases. */
void TILE_NAME(ln_kernel_conv_winograd_)(const ln_memory *memory, const ln_step *step, int64_t images, int64_t unit,
                                         int64_t worker) {
    ln_patches patches = ln_unit_patches(step, images, unit);
    int64_t rounded = ln_ceil_div(step->mc, MR) * MR;
    float *u = memory->arena + step->scratch + worker * step->scratch_size;
    int64_t u_point = rounded * step->in_c, m_point = rounded * WIDTH;
    float *m = u + PATCH_POINTS * u_point;
    ln_transform_inputs(memory->arena, step, &patches, u, u_point);

    int64_t block = step->depth * WIDTH, tiles = ln_ceil_div(patches.count, MR);
    ln_tile tile = {
        .taps = memory->tables + step->taps,
        .tap_count = 1,
        .depth = step->depth,
        .bias = memory->weights + step->zeros,
        .first = 1,
        .w = memory->weights + step->weight,
        .prefetch_step = LN_TILE_UNROLL * WIDTH / tiles,
    };
    for (int64_t panel = 0; panel < step->panels; panel++) {
        for (int64_t point = 0; point < PATCH_POINTS; point++) {
            tile.x = u + point * u_point;
            tile.y = m + point * m_point;
            for (int64_t row = 0; row < patches.count; row += MR) {
                tile.x_rows = memory->tables + step->x_rows + row;
                tile.y_rows = memory->tables + step->y_rows + row;
                tile.prefetch = tile.w + block + row / MR * (block / tiles);
                TILE_NAME(gemm_tile_)(&tile);
            }
            tile.w += block;
        }
        ln_transform_outputs(memory, step, &patches, m, m_point, WIDTH, panel * WIDTH);
    }
    ln_clear_patches_halo(memory, step, &patches, worker);
}

#undef TILE_PASTE
#undef TILE_NAME_
#undef TILE_NAME
#undef WIDTH
#undef MR
#undef NR
