/* Runs one tile of Numba's micro-kernel for bytes against its sums, which are exact.
 *
 * Two taps of every depth around the unrolled loop, leftovers behind the last element; sums as they wait between blocks
 * of K, after one block and, from there, a second one. SIGNED_BIAS: what sums start from holds 128 times the sum of the
 * weights. Exit status 1 if a sum is another.
 */
#include "numba_tile.h"

enum { Y = 1 << 15 }; /* words */

int main(void) {
    uint8_t *x = (uint8_t *)arena;
    int8_t *w = (int8_t *)weights;
    int32_t *starts = (int32_t *)weights + BIAS, *y = (int32_t *)arena + Y;
    fill_tables();
    for (int depth = 4; depth <= MOST_DEPTH; depth += 4) {
        for (int i = 0; i < Y * 4; i++) x[i] = (uint8_t)(rand() >> 8);
        for (int i = 0; i < TAPS * depth * WIDTH; i++) w[i] = (int8_t)(rand() >> 8);
        if (depth == 8) memset(x, 255, Y * 4), memset(w, -128, (size_t)(TAPS * depth * WIDTH)); /* far beyond 16 bits */
        int32_t bias[WIDTH];
        for (int n = 0; n < WIDTH; n++) {
            starts[n] = bias[n] = 1000 * n - 7;
            for (int i = 0; i < TAPS * depth && SIGNED_BIAS; i++)
                starts[n] += 128 * w[(i / 4 * WIDTH + n) * 4 + i % 4];
        }
        for (int block = 1; block <= 2; block++) {
            /* y is float32 to the tile, so that sums wait there */
            tile(arena, weights, tables, 0, X_ROWS, 0, TAP_TABLE, TAPS, depth, Y, Y_ROWS, BIAS, 0, 0, 0, 0, block == 1,
                 0, 0, 0, 0, 0, 0, 0, 0);
            for (int m = 0; m < MR; m++)
                for (int n = 0; n < WIDTH; n++) {
                    int32_t sum = 0;
                    for (int t = 0; t < TAPS; t++)
                        for (int k = 0; k < depth; k++)
                            sum += x[(m * TAPS + t) * PITCH + k] * w[((t * depth + k) / 4 * WIDTH + n) * 4 + k % 4];
                    /* the second block has the same weights, and no start of its own to make up for 128 */
                    int32_t expected = bias[n] + block * sum - (block - 1) * (starts[n] - bias[n]);
                    if (y[m * WIDTH + n] != expected) {
                        printf("depth %d, block %d, row %d, channel %d: %d in place of %d\n", depth, block, m, n,
                               y[m * WIDTH + n], expected);
                        return 1;
                    }
                }
        }
    }
    return 0;
}
