/* The micro-kernel of implicit GEMM for bytes, and the convolution that calls it, for one register tile.
 *
 * Included once per tile by conv_u8.c, with MR and NR defined. As tile.h, with words of four bytes of depth in place of
 * float32, and requantize.h in place of the clip.
 */

#define TILE_PASTE(prefix, mr, nr) prefix##mr##x##nr
#define TILE_NAME_(prefix, mr, nr) TILE_PASTE(prefix, mr, nr)
#define TILE_NAME(prefix) TILE_NAME_(prefix, MR, NR)
#define WIDTH (NR * LN_LANES)

#include "sums_u8.h"

LN_TYPED_KERNEL_OF(TILE_NAME(conv_gemm_)) {
    ln_blocks count = ln_pixel_blocks(step, images);
    int64_t jc = unit / count.all, ic = unit % count.all;
    int64_t group = ic / count.per_group, block = ic % count.per_group;
    int64_t image0 = group * step->group_images;
    int64_t group_pixels = ln_min(step->group_images, images - image0) * step->out_h * step->out_w;
    int64_t m_begin = block * step->mc, m_end = ln_min(m_begin + step->mc, group_pixels);
    int64_t panel_begin = jc * step->nc_panels, panel_end = ln_min(panel_begin + step->nc_panels, step->panels);
    int64_t y = step->y + worker * step->y_worker + image0 * step->y_image, b = step->b + image0 * step->b_image;
    const int32_t *tables = memory->tables;
    ln_requantizer requantizer = ln_requantizer_of(memory, step->numbers, step->stages);
    int32_t *waiting = (int32_t *)memory->arena + step->scratch + worker * step->scratch_size;
    const int32_t *starts = (const int32_t *)memory->weights + ln_byte_starts(step);
    int32_t sums[MR * WIDTH];
    ln_byte_tile tile = {0};
    const uint8_t *x = (const uint8_t *)memory->arena + step->x + worker * step->x_worker + image0 * step->x_image;

    /* Pixels outside, and panels inside, or the reverse; in the latter K may be cut. */
    int64_t outer_end = step->panels_outside ? panel_end : m_end, outer_step = step->panels_outside ? 1 : MR;
    for (int64_t outer = step->panels_outside ? panel_begin : m_begin; outer < outer_end; outer += outer_step) {
        int64_t first_panel = step->panels_outside ? outer : panel_begin;
        int64_t last_panel = step->panels_outside ? outer + 1 : panel_end;
        int64_t first_m = step->panels_outside ? m_begin : outer, last_m = step->panels_outside ? m_end : outer + 1;
        for (int64_t panel = first_panel; panel < last_panel; panel++) {
            tile.w = (const int8_t *)(memory->weights + step->weight + panel * step->panel);
            tile.starts = starts + panel * WIDTH;
            for (int64_t tap = 0; tap < step->tap_count; tap += step->kc_taps) {
                tile.taps = tables + step->taps + tap;
                tile.tap_count = ln_min(step->kc_taps, step->tap_count - tap);
                for (int64_t k = 0; k < step->depth; k += step->kc_depth) {
                    tile.depth = ln_min(step->kc_depth, step->depth - k);
                    tile.first = tap + k == 0;
                    tile.x = x + k;
                    int last = tap + tile.tap_count == step->tap_count && k + tile.depth == step->depth;
                    for (int64_t m = first_m; m < last_m; m += MR) {
                        tile.x_rows = tables + step->x_rows + m;
                        tile.sums = waiting + (m - m_begin) * WIDTH;
                        TILE_NAME(byte_tile_)(&tile, last ? sums : waiting + (m - m_begin) * WIDTH);
                        for (int row = 0; row < MR && last; row++)
                            for (int n = 0; n < WIDTH; n += LN_LANES) {
                                int64_t channel = panel * WIDTH + n;
                                ln_requantize(&requantizer, Y, B, memory, vld1q_s32(sums + row * WIDTH + n),
                                              vld1q_f32(memory->weights + step->scale + channel), step->has_b,
                                              b + tables[step->b_rows + m + row] + channel,
                                              y + tables[step->y_rows + m + row] + channel);
                            }
                    }
                    tile.w += tile.tap_count * tile.depth * WIDTH;
                }
            }
        }
    }
    if (jc == 0) {
        int64_t before = image0 * step->out_h * step->out_w;
        ln_zero_halo(Y, memory, step, before + m_begin, before + m_end, worker);
    }
}
LN_INSTANCE_OF(TILE_NAME(conv_gemm_), _u8, LN_U8, LN_U8, LN_U8)
LN_INSTANCE_OF(TILE_NAME(conv_gemm_), _u8_f32, LN_U8, LN_F32, LN_U8)

#undef TILE_PASTE
#undef TILE_NAME_
#undef TILE_NAME
#undef WIDTH
#undef MR
#undef NR
