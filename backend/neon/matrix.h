/* Micro-kernels of implicit GEMM by products of 2x8 bytes with 8x2: SMMLA, USMMLA. For one type and one tile.
 *
 * The sums and step records are those of dot.h. One instruction adds four sums, of two rows and two channels, over eight
 * bytes of depth: half the instructions of a dot product. Weights are packed [panel][tap][depth / G][NR * 2][2][G] with G
 * elements in eight bytes: pairs of channels. Rows are loaded in pairs, eight bytes each; MR is even.
 */

#define MM_PASTE(prefix, name, mr, nr) prefix##name##_##mr##x##nr
#define MM_NAMED_(prefix, name, mr, nr) MM_PASTE(prefix, name, mr, nr)
#define MM_NAMED(prefix) MM_NAMED_(prefix, MM_NAME, MR, NR)
#define PAIRS (NR * 2)

static inline __attribute__((always_inline)) void MM_NAMED(multiply_)(MM_SUM acc[MR / 2][PAIRS],
                                                                      const uint64_t *const *x, int64_t k,
                                                                      const MM_VECTOR *w) {
    MM_VECTOR b[PAIRS];
    LN_UNROLLED for (int n = 0; n < PAIRS; n++) b[n] = w[n];
    LN_UNROLLED for (int m = 0; m < MR / 2; m++) {
        MM_OTHER a;
        __asm__("ldr %d0, %1" : "=w"(a) : "m"(x[2 * m][k]));
        __asm__("ld1 {%0.d}[1], %1" : "+w"(a) : "Q"(x[2 * m + 1][k]));
        LN_UNROLLED for (int n = 0; n < PAIRS; n++) acc[m][n] = MM(acc[m][n], a, b[n]);
    }
}

static __attribute__((noinline)) void MM_NAMED(matrix_tile_)(const ln_dots *t) {
    MM_SUM acc[MR / 2][PAIRS];
    LN_UNROLLED for (int n = 0; n < NR; n++) {
        MM_SUM bias = MM_LOAD(t->bias + n * LN_LANES);
        MM_SUM low = MM_LOW_TWICE(bias), high = MM_HIGH_TWICE(bias);
        LN_UNROLLED for (int m = 0; m < MR / 2; m++) acc[m][2 * n] = low, acc[m][2 * n + 1] = high;
    }
    const MM_VECTOR *w = t->w;
    const int64_t groups = t->groups;
    for (int64_t tap = 0; tap < t->tap_count; tap++) {
        const uint64_t *x[MR];
        LN_UNROLLED for (int m = 0; m < MR; m++)
            x[m] = (const uint64_t *)((const MM_X *)t->x + t->taps[tap] + t->x_rows[m]);
        int64_t k = 0;
        for (; k + LN_UNROLL <= groups; k += LN_UNROLL) {
            LN_UNROLLED for (int u = 0; u < LN_UNROLL; u++) MM_NAMED(multiply_)(acc, x, k + u, w + u * PAIRS);
            w += LN_UNROLL * PAIRS;
        }
        for (; k < groups; k++) {
            MM_NAMED(multiply_)(acc, x, k, w);
            w += PAIRS;
        }
    }
    LN_UNROLLED for (int m = 0; m < MR; m++)
        LN_UNROLLED for (int n = 0; n < NR; n++) {
            MM_SUM a = acc[m / 2][2 * n], b = acc[m / 2][2 * n + 1];
            MM_STORE(t->y + t->y_rows[m] + n * LN_LANES, m % 2 ? MM_HIGHS(a, b) : MM_LOWS(a, b));
        }
}

LN_DOT_KERNEL(MM_NAMED(ln_kernel_gemm_), MM_NAMED(matrix_tile_), MM_X, 8, MR, NR)

#undef MM_PASTE
#undef MM_NAMED_
#undef MM_NAMED
#undef PAIRS
#undef MR
#undef NR
