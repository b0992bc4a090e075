/* The sums of a register tile over bfloat16: included by tile.h, for one MR and NR.
 *
 * Each output element is one chain of dot products of pairs in ascending depth. Where MR is even BFMMLA does two of them
 * at a time, for two rows and two channels, one after the other like BFDOT and so with the same bits (the manual's
 * BFMatMulAdd): half the instructions, less one that interleaves weights, which are packed for BFDOT, per vector and
 * step, and one that joins two rows.
 */

/* Adds a word of depth of all rows; w points at the weights of that word. */
LN_INLINE void TILE_NAME(multiply_)(float32x4_t acc[MR][NR], const ln_half *const *x, int64_t k, const float *w,
                                    const int whole) {
    ln_pairs b[NR];
    LN_UNROLLED for (int n = 0; n < NR; n++) b[n] = ln_pairs_of(ln_weight_words(w + n * LN_LANES));
    LN_UNROLLED for (int m = 0; m < MR; m++) {
        ln_pairs a = ln_pairs_of(whole ? ln_pair_word(x[m] + k) : ln_last_word(x[m] + k));
        LN_UNROLLED for (int n = 0; n < NR; n++) acc[m][n] = ln_pair_dot(acc[m][n], b[n], a);
    }
}

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC) && MR % 2 == 0
/* blocks[m][n]: rows 2 m and 2 m + 1 by channels 0 and 1 of vector n, and by channels 2 and 3. */
LN_INLINE void TILE_NAME(to_blocks_)(float32x4_t acc[MR][NR], float32x4_t blocks[MR / 2][NR][2]) {
    LN_UNROLLED for (int m = 0; m < MR / 2; m++)
        LN_UNROLLED for (int n = 0; n < NR; n++) {
            float64x2_t upper = vreinterpretq_f64_f32(acc[2 * m][n]), lower = vreinterpretq_f64_f32(acc[2 * m + 1][n]);
            blocks[m][n][0] = vreinterpretq_f32_f64(vzip1q_f64(upper, lower));
            blocks[m][n][1] = vreinterpretq_f32_f64(vzip2q_f64(upper, lower));
        }
}

LN_INLINE void TILE_NAME(from_blocks_)(float32x4_t blocks[MR / 2][NR][2], float32x4_t acc[MR][NR]) {
    LN_UNROLLED for (int m = 0; m < MR / 2; m++)
        LN_UNROLLED for (int n = 0; n < NR; n++) {
            float64x2_t left = vreinterpretq_f64_f32(blocks[m][n][0]), right = vreinterpretq_f64_f32(blocks[m][n][1]);
            acc[2 * m][n] = vreinterpretq_f32_f64(vzip1q_f64(left, right));
            acc[2 * m + 1][n] = vreinterpretq_f32_f64(vzip2q_f64(left, right));
        }
}

/* Two words of rows 2 m and 2 m + 1, side by side. */
LN_INLINE bfloat16x8_t TILE_NAME(row_pair_)(const ln_half *const *x, int m, int64_t k) {
    bfloat16x8_t pair;
    __asm__("ldr %d0, %1" : "=w"(pair) : "m"(*(const uint64_t *)(const void *)(x[2 * m] + k)));
    __asm__("ld1 {%0.d}[1], %1" : "+w"(pair) : "Q"(*(const uint64_t *)(const void *)(x[2 * m + 1] + k)));
    return pair;
}

/* Two words of channels 0 and 1, and of channels 2 and 3, of vector n. */
LN_INLINE bfloat16x8x2_t TILE_NAME(channel_pairs_)(const float *w, int n) {
    uint32x4_t first = ln_weight_words(w + n * LN_LANES), second = ln_weight_words(w + WIDTH + n * LN_LANES);
    bfloat16x8x2_t pairs;
    pairs.val[0] = vreinterpretq_bf16_u32(vzip1q_u32(first, second));
    pairs.val[1] = vreinterpretq_bf16_u32(vzip2q_u32(first, second));
    return pairs;
}

/* Adds two words of depth of all rows. Of rows and weights those are kept in registers that are fewer. */
LN_INLINE void TILE_NAME(multiply_two_)(float32x4_t blocks[MR / 2][NR][2], const ln_half *const *x, int64_t k,
                                        const float *w) {
#if MR > 4 * NR
    bfloat16x8x2_t b[NR];
    LN_UNROLLED for (int n = 0; n < NR; n++) b[n] = TILE_NAME(channel_pairs_)(w, n);
    LN_UNROLLED for (int m = 0; m < MR / 2; m++) {
        bfloat16x8_t a = TILE_NAME(row_pair_)(x, m, k);
        LN_UNROLLED for (int n = 0; n < NR; n++) {
            blocks[m][n][0] = vbfmmlaq_f32(blocks[m][n][0], a, b[n].val[0]);
            blocks[m][n][1] = vbfmmlaq_f32(blocks[m][n][1], a, b[n].val[1]);
        }
    }
#else
    bfloat16x8_t a[MR / 2];
    LN_UNROLLED for (int m = 0; m < MR / 2; m++) a[m] = TILE_NAME(row_pair_)(x, m, k);
    LN_UNROLLED for (int n = 0; n < NR; n++) {
        bfloat16x8x2_t b = TILE_NAME(channel_pairs_)(w, n);
        LN_UNROLLED for (int m = 0; m < MR / 2; m++) blocks[m][n][0] = vbfmmlaq_f32(blocks[m][n][0], a[m], b.val[0]);
        LN_UNROLLED for (int m = 0; m < MR / 2; m++) blocks[m][n][1] = vbfmmlaq_f32(blocks[m][n][1], a[m], b.val[1]);
    }
#endif
}
#endif

/* Adds all taps and depth. BFMMLA's two words are a turn of the loop: with four, compilers move sums from register to
 * register, or keep some in memory. */
LN_INLINE void TILE_NAME(add_products_)(const ln_tile *t, float32x4_t acc[MR][NR]) {
    const float *w = t->w;
    const char *prefetch = (const char *)t->prefetch;
    const int64_t depth = t->depth, prefetch_step = t->prefetch_step * (int64_t)sizeof(float);
    for (int64_t tap = 0; tap < t->tap_count; tap++) {
        const ln_half *x[MR], *window = t->x + t->taps[tap];
        LN_UNROLLED for (int m = 0; m < MR; m++) x[m] = window + t->x_rows[m];
        int64_t k = 0;
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC) && MR % 2 == 0
        float32x4_t blocks[MR / 2][NR][2];
        TILE_NAME(to_blocks_)(acc, blocks);
        for (; k + 4 <= depth; k += 4) {
            TILE_NAME(multiply_two_)(blocks, x, k, w);
            w += 2 * WIDTH;
            __builtin_prefetch(prefetch, 0, 2);
            prefetch += prefetch_step / (LN_TILE_UNROLL / 2);
        }
        TILE_NAME(from_blocks_)(blocks, acc);
#else
        for (; k + 2 * LN_TILE_UNROLL <= depth; k += 2 * LN_TILE_UNROLL) {
            LN_UNROLLED for (int u = 0; u < LN_TILE_UNROLL; u++)
                TILE_NAME(multiply_)(acc, x, k + 2 * u, w + u * WIDTH, 1);
            w += LN_TILE_UNROLL * WIDTH;
            __builtin_prefetch(prefetch, 0, 2);
            __builtin_prefetch(prefetch + LN_LINE_BYTES, 0, 2);
            prefetch += prefetch_step;
        }
#endif
        for (; k + 2 <= depth; k += 2) {
            TILE_NAME(multiply_)(acc, x, k, w, 1);
            w += WIDTH;
        }
        if (k < depth) { /* what lies behind the last element may be anything, a NaN too */
            TILE_NAME(multiply_)(acc, x, k, w, 0);
            w += WIDTH;
        }
    }
}
