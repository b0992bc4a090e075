/* The sums of a register tile over float32: included by tile.h, for one MR and NR.
 *
 * Each output element is one chain of fused multiply-adds. A multiply-add takes its scalar from lane 0 of a register that
 * a plain scalar load has filled: LD1R, which compilers would choose, needs a slot of the vector units on Arm's cores, and
 * so would take it from the multiply-adds. Hence the one instruction of assembly. The file is compiled without scheduling
 * before register allocation (build.py): the order below is the one that fits 32 registers.
 */

/* Adds depth [k, k + 1) of all rows; w points at the weights of that depth. */
LN_INLINE void TILE_NAME(multiply_)(float32x4_t acc[MR][NR], const float *const *x, int64_t k, const float *w) {
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
LN_INLINE void TILE_NAME(multiply_four_)(float32x4_t acc[MR][NR], const float *const *x, int64_t k, const float *w) {
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

/* Adds all taps and depth. */
LN_INLINE void TILE_NAME(add_products_)(const ln_tile *t, float32x4_t acc[MR][NR]) {
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
}
