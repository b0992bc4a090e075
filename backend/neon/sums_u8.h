/* The sums of a register tile over bytes: included by tile_u8.h, for one MR and NR.
 *
 * With FEAT_I8MM a USMMLA does the work of two SUDOTs: two rows by two channels by two words of depth. Rows are joined in
 * pairs, and weights, which are packed for dot products, are interleaved, an instruction each; so sums are kept in blocks
 * of two by two from the first tap to the last. A last row without another is joined with zeros. That is not worth while
 * for a single row, nor is there such an instruction without the feature: then sums are kept as they are stored.
 */

#if defined(__ARM_FEATURE_MATMUL_INT8) && MR > 1
#define PAIRS ((MR + 1) / 2)
#define STEP 2 /* words of depth that the loop adds at a time */

/* [m][n]: rows 2 m and 2 m + 1 by channels 0 and 1 of vector n, and by channels 2 and 3. */
typedef int32x4_t TILE_NAME(ln_byte_sums_)[PAIRS][NR][2];

LN_INLINE void TILE_NAME(load_sums_)(TILE_NAME(ln_byte_sums_) acc, const int32_t *rows, int64_t pitch) {
    LN_UNROLLED for (int m = 0; m < PAIRS; m++)
        LN_UNROLLED for (int n = 0; n < NR; n++) {
            int32x4_t upper = vld1q_s32(rows + 2 * m * pitch + n * LN_LANES);
            int32x4_t lower = 2 * m + 1 < MR ? vld1q_s32(rows + (2 * m + 1) * pitch + n * LN_LANES) : vdupq_n_s32(0);
            acc[m][n][0] = vcombine_s32(vget_low_s32(upper), vget_low_s32(lower));
            acc[m][n][1] = vcombine_s32(vget_high_s32(upper), vget_high_s32(lower));
        }
}

LN_INLINE void TILE_NAME(store_sums_)(TILE_NAME(ln_byte_sums_) acc, int32_t *rows) {
    LN_UNROLLED for (int m = 0; m < MR; m++)
        LN_UNROLLED for (int n = 0; n < NR; n++) {
            int32x4_t left = acc[m / 2][n][0], right = acc[m / 2][n][1];
            vst1q_s32(rows + m * WIDTH + n * LN_LANES,
                      m % 2 ? vcombine_s32(vget_high_s32(left), vget_high_s32(right))
                            : vcombine_s32(vget_low_s32(left), vget_low_s32(right)));
        }
}

/* Rows 2 m and 2 m + 1, side by side: eight bytes of each, or a word and zeros. */
LN_INLINE uint8x16_t TILE_NAME(row_pair_)(const uint8_t *const *x, int m, int64_t k, const int words) {
    uint8x16_t upper = words == 2 ? ln_plain_words(x[2 * m] + k) : ln_plain_word(x[2 * m] + k);
    if (2 * m + 1 == MR) return upper;
    uint8x16_t lower = words == 2 ? ln_plain_words(x[2 * m + 1] + k) : ln_plain_word(x[2 * m + 1] + k);
    return vcombine_u8(vget_low_u8(upper), vget_low_u8(lower));
}

/* Two words of channels 0 and 1, and of channels 2 and 3, of vector n; or one, twice, the other being multiplied by zeros. */
LN_INLINE int8x16x2_t TILE_NAME(channel_pairs_)(const int8_t *w, int n, const int words) {
    int32x4_t first = vreinterpretq_s32_s8(vld1q_s8(w + n * 16));
    int32x4_t second = words == 2 ? vreinterpretq_s32_s8(vld1q_s8(w + WIDTH * 4 + n * 16)) : first;
    int8x16x2_t pairs;
    pairs.val[0] = vreinterpretq_s8_s32(vzip1q_s32(first, second));
    pairs.val[1] = vreinterpretq_s8_s32(vzip2q_s32(first, second));
    return pairs;
}

/* Adds one or two words of depth of all rows. Of rows and weights those are kept in registers that are fewer. */
LN_INLINE void TILE_NAME(multiply_)(TILE_NAME(ln_byte_sums_) acc, const uint8_t *const *x, int64_t k, const int8_t *w,
                                    const int words) {
#if MR > 4 * NR
    int8x16x2_t b[NR];
    LN_UNROLLED for (int n = 0; n < NR; n++) b[n] = TILE_NAME(channel_pairs_)(w, n, words);
    LN_UNROLLED for (int m = 0; m < PAIRS; m++) {
        uint8x16_t a = TILE_NAME(row_pair_)(x, m, k, words);
        LN_UNROLLED for (int n = 0; n < NR; n++) {
            acc[m][n][0] = vusmmlaq_s32(acc[m][n][0], a, b[n].val[0]);
            acc[m][n][1] = vusmmlaq_s32(acc[m][n][1], a, b[n].val[1]);
        }
    }
#else
    uint8x16_t a[PAIRS];
    LN_UNROLLED for (int m = 0; m < PAIRS; m++) a[m] = TILE_NAME(row_pair_)(x, m, k, words);
    LN_UNROLLED for (int n = 0; n < NR; n++) {
        int8x16x2_t b = TILE_NAME(channel_pairs_)(w, n, words);
        LN_UNROLLED for (int m = 0; m < PAIRS; m++) acc[m][n][0] = vusmmlaq_s32(acc[m][n][0], a[m], b.val[0]);
        LN_UNROLLED for (int m = 0; m < PAIRS; m++) acc[m][n][1] = vusmmlaq_s32(acc[m][n][1], a[m], b.val[1]);
    }
#endif
}
#undef PAIRS

#else
#define STEP 4

typedef int32x4_t TILE_NAME(ln_byte_sums_)[MR][NR];

LN_INLINE void TILE_NAME(load_sums_)(TILE_NAME(ln_byte_sums_) acc, const int32_t *rows, int64_t pitch) {
    LN_UNROLLED for (int n = 0; n < NR; n++)
        LN_UNROLLED for (int m = 0; m < MR; m++) acc[m][n] = vld1q_s32(rows + m * pitch + n * LN_LANES);
}

LN_INLINE void TILE_NAME(store_sums_)(TILE_NAME(ln_byte_sums_) acc, int32_t *rows) {
    LN_UNROLLED for (int m = 0; m < MR; m++)
        LN_UNROLLED for (int n = 0; n < NR; n++) vst1q_s32(rows + m * WIDTH + n * LN_LANES, acc[m][n]);
}

/* Adds words of depth of all rows. */
LN_INLINE void TILE_NAME(multiply_)(TILE_NAME(ln_byte_sums_) acc, const uint8_t *const *x, int64_t k, const int8_t *w,
                                    const int words) {
    LN_UNROLLED for (int word = 0; word < words; word++, k += 4, w += WIDTH * 4) {
        int8x16_t b[NR];
        LN_UNROLLED for (int n = 0; n < NR; n++) b[n] = vld1q_s8(w + n * 16);
        LN_UNROLLED for (int m = 0; m < MR; m++) {
            ln_bytes a = ln_word_at(x[m] + k);
            LN_UNROLLED for (int n = 0; n < NR; n++) acc[m][n] = ln_byte_dot(acc[m][n], b[n], a);
        }
    }
}
#endif

static __attribute__((noinline)) void TILE_NAME(byte_tile_)(const ln_byte_tile *t, int32_t *sums) {
    TILE_NAME(ln_byte_sums_) acc;
    TILE_NAME(load_sums_)(acc, t->first ? t->starts : t->sums, t->first ? 0 : WIDTH);
    const int8_t *w = t->w;
    const int64_t depth = t->depth;
    for (int64_t tap = 0; tap < t->tap_count; tap++) {
        const uint8_t *x[MR], *window = t->x + t->taps[tap];
        LN_UNROLLED for (int m = 0; m < MR; m++) x[m] = window + t->x_rows[m];
        int64_t k = 0;
        for (; k + 4 * STEP <= depth; k += 4 * STEP) {
            TILE_NAME(multiply_)(acc, x, k, w, STEP);
            w += 4 * STEP * WIDTH;
        }
        for (; k < depth; k += 4) {
            TILE_NAME(multiply_)(acc, x, k, w, 1);
            w += 4 * WIDTH;
        }
    }
    TILE_NAME(store_sums_)(acc, sums);
}

#undef STEP
