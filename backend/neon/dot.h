/* Micro-kernels of implicit GEMM by dot products of four bytes: SDOT, SUDOT. For one type and one tile.
 *
 *     C[m, n] = bias[n] + sum over taps t, depth k of X[m, t, k] * W[t, k, n]
 *
 * Included with MR, NR and, for the type, DOT_NAME, DOT_X (element of x), DOT_SUM (vector of four sums), DOT_VECTOR
 * (vector of x or w), DOT(sum, w, x) and how sums are loaded and stored.
 *
 * A step record's x and depth are in elements of x; y is in words of four bytes, and so are weight, bias and panel.
 * Weights are packed [panel][tap][depth / G][NR * 4][G] with G elements in four bytes, depth rounded up to whole groups
 * by zeros; x is read up to there, so what lies behind a row's last element must be readable.
 * Sums are written as they are, int32.
 *
 * Four bytes of a row are loaded as one scalar, as in sums_f32.h and for its reason.
 */

#define DOT_PASTE(prefix, name, mr, nr) prefix##name##_##mr##x##nr
#define DOT_NAMED_(prefix, name, mr, nr) DOT_PASTE(prefix, name, mr, nr)
#define DOT_NAMED(prefix) DOT_NAMED_(prefix, DOT_NAME, MR, NR)

static inline __attribute__((always_inline)) void DOT_NAMED(multiply_)(DOT_SUM acc[MR][NR], const uint32_t *const *x,
                                                                       int64_t k, const DOT_VECTOR *w) {
    DOT_VECTOR b[NR];
    LN_UNROLLED for (int n = 0; n < NR; n++) b[n] = w[n];
    LN_UNROLLED for (int m = 0; m < MR; m++) {
        DOT_OTHER a;
        __asm__("ldr %s0, %1" : "=w"(a) : "m"(x[m][k]));
        LN_UNROLLED for (int n = 0; n < NR; n++) acc[m][n] = DOT(acc[m][n], b[n], a);
    }
}

static __attribute__((noinline)) void DOT_NAMED(dot_tile_)(const ln_dots *t) {
    DOT_SUM acc[MR][NR];
    LN_UNROLLED for (int n = 0; n < NR; n++) {
        DOT_SUM bias = DOT_LOAD(t->bias + n * LN_LANES);
        LN_UNROLLED for (int m = 0; m < MR; m++) acc[m][n] = bias;
    }
    const DOT_VECTOR *w = t->w;
    const int64_t groups = t->groups;
    for (int64_t tap = 0; tap < t->tap_count; tap++) {
        const uint32_t *x[MR];
        LN_UNROLLED for (int m = 0; m < MR; m++)
            x[m] = (const uint32_t *)((const DOT_X *)t->x + t->taps[tap] + t->x_rows[m]);
        int64_t k = 0;
        for (; k + LN_UNROLL <= groups; k += LN_UNROLL) {
            LN_UNROLLED for (int u = 0; u < LN_UNROLL; u++) DOT_NAMED(multiply_)(acc, x, k + u, w + u * NR);
            w += LN_UNROLL * NR;
        }
        for (; k < groups; k++) {
            DOT_NAMED(multiply_)(acc, x, k, w);
            w += NR;
        }
    }
    LN_UNROLLED for (int m = 0; m < MR; m++)
        LN_UNROLLED for (int n = 0; n < NR; n++) DOT_STORE(t->y + t->y_rows[m] + n * LN_LANES, acc[m][n]);
}

LN_DOT_KERNEL(DOT_NAMED(ln_kernel_gemm_), DOT_NAMED(dot_tile_), DOT_X, 4, MR, NR)

#undef DOT_PASTE
#undef DOT_NAMED_
#undef DOT_NAMED
#undef MR
#undef NR
