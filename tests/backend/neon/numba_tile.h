/* What the drivers of Numba's tiles share. tile() is kernels/gemm_tile.py's, with pointers in place of arrays, and
 * cross-compiled by test_numba_tiles.py; MR and NR are its tile's. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* PITCH: elements from one tap of a row to the next. X_ROWS, Y_ROWS, TAP_TABLE: where tables lie; BIAS: a word of weights. */
enum { WIDTH = NR * 4, TAPS = 2, PITCH = 48, MOST_DEPTH = 40 };
enum { X_ROWS = 0, Y_ROWS = 64, TAP_TABLE = 128, BIAS = 1 << 17 };

void tile(float *arena, float *weights, int32_t *tables, int64_t x, int64_t x_rows, int64_t w, int64_t taps,
          int64_t tap_count, int64_t depth, int64_t y, int64_t y_rows, int64_t bias, int64_t sums, int64_t residual,
          int64_t residual_rows, int64_t has_residual, int64_t first, int64_t last, float low, float high,
          int64_t scale, int64_t numbers, int64_t stages, int64_t prefetch, int64_t prefetch_step);

static _Alignas(64) float arena[1 << 16], weights[1 << 18];
static int32_t tables[192];

static void fill_tables(void) {
    for (int m = 0; m < MR; m++) tables[X_ROWS + m] = m * TAPS * PITCH, tables[Y_ROWS + m] = m * WIDTH;
    tables[TAP_TABLE + 1] = PITCH;
}
