/* Runs one tile of Numba's micro-kernel for bfloat16, cross-compiled by test_numba_tiles.py, against sums in double.
 *
 * tile() is kernels/gemm_tile.py's, with pointers in place of arrays. MR and NR are its tile's. Two taps of every depth
 * around the unrolled loop, NaNs behind the last element. Exit status 1 if a result is off: by more than its rounding to
 * eight bits and the bound of its sum.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = NR * 4, TAPS = 2, PITCH = 48, MOST_DEPTH = 40, BIAS = 1 << 17, Y = 1 << 16 };

void tile(float *arena, float *weights, int32_t *tables, int64_t x, int64_t x_rows, int64_t w, int64_t taps,
          int64_t tap_count, int64_t depth, int64_t y, int64_t y_rows, int64_t bias, int64_t sums, int64_t residual,
          int64_t residual_rows, int64_t has_residual, int64_t first, int64_t last, float low, float high,
          int64_t scale, int64_t numbers, int64_t stages, int64_t prefetch, int64_t prefetch_step);

static _Alignas(64) float arena[1 << 16], weights[1 << 18];
static int32_t tables[192];

static uint16_t random_half(void) {
    float value = (float)rand() / RAND_MAX * 2 - 1;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static double value_of(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

int main(void) {
    uint16_t *x = (uint16_t *)arena, *w = (uint16_t *)weights;
    for (int m = 0; m < MR; m++) tables[m] = m * TAPS * PITCH, tables[64 + m] = m * WIDTH;
    tables[129] = PITCH;
    for (int depth = 1; depth <= MOST_DEPTH; depth++) {
        int words = (depth + 1) / 2;
        for (size_t i = 0; i < sizeof arena / sizeof *x; i++) x[i] = 0x7FC0;
        memset(weights, 0, sizeof weights);
        for (int t = 0; t < TAPS; t++)
            for (int k = 0; k < depth; k++) {
                for (int m = 0; m < MR; m++) x[(m * TAPS + t) * PITCH + k] = random_half();
                for (int n = 0; n < WIDTH; n++) w[((t * words + k / 2) * WIDTH + n) * 2 + k % 2] = random_half();
            }
        for (int n = 0; n < WIDTH; n++) weights[BIAS + n] = (float)n / 7;
        tile(arena, weights, tables, 0, 0, 0, 128, TAPS, depth, Y, 64, BIAS, 0, 0, 0, 0, 1, 1, -INFINITY, INFINITY, 0,
             0, 0, 0, 0);
        for (int m = 0; m < MR; m++)
            for (int n = 0; n < WIDTH; n++) {
                double sum = weights[BIAS + n], magnitude = fabs(sum);
                for (int t = 0; t < TAPS; t++)
                    for (int k = 0; k < depth; k++) {
                        double product = value_of(x[(m * TAPS + t) * PITCH + k]) *
                                         value_of(w[((t * words + k / 2) * WIDTH + n) * 2 + k % 2]);
                        sum += product, magnitude += fabs(product);
                    }
                double off = fabs(value_of(x[Y + m * WIDTH + n]) - sum);
                /* y to nearest (half of 2^-7); sums to odd, on the way of a product its pair's and those of all pairs */
                if (!(off <= fabs(sum) / 256 + magnitude * ldexp(2 * (TAPS * words + 1) + 3, -24))) {
                    printf("depth %d, row %d, channel %d: off by %g\n", depth, m, n, off);
                    return 1;
                }
            }
    }
    return 0;
}
