/* Runs one tile of Numba's micro-kernel for bfloat16 against sums in double.
 *
 * Two taps of every depth around the unrolled loop, NaNs behind the last element. Exit status 1 if a result is off: by
 * more than its rounding to eight bits and the bound of its sum.
 */
#include <math.h>

#include "numba_tile.h"

enum { Y = 1 << 16 }; /* elements */

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
    fill_tables();
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
        tile(arena, weights, tables, 0, X_ROWS, 0, TAP_TABLE, TAPS, depth, Y, Y_ROWS, BIAS, 0, 0, 0, 0, 1, 1,
             -INFINITY, INFINITY, 0, 0, 0, 0, 0);
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
