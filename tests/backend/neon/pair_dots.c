/* BFMMLA against two BFDOTs one after the other, for random words: exit status 1 if a bit differs.
 *
 * Exponents are near each other, so that sums cancel and round; some words are denormals, zeros, infinities and NaNs.
 */
#include <arm_neon.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRIALS = 200000, ROUNDED = 4 };

static uint64_t state = 88172645463325252u;

static uint32_t random_bits(void) { /* xorshift: rand() has 31 bits at most */
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}

/* A bfloat16 of magnitude 2^-4 to 2^4, or now and then any. */
static uint16_t random_half(void) {
    uint32_t bits = random_bits();
    if (bits % 64 == 0) return (uint16_t)(bits >> 8);
    return (uint16_t)((bits & 0x807Fu) | (123 + (bits >> 16) % 8) << 7);
}

static float random_sum(void) {
    uint32_t bits = random_bits();
    if (bits % 64 != 1) bits = (bits & 0x807FFFFFu) | (121 + (bits >> 8) % 12) << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

int main(void) {
    long inexact = 0;
    for (long trial = 0; trial < TRIALS; trial++) {
        uint16_t x[8], w[8]; /* two rows, and two channels, of four elements of depth */
        float start[4], by_two[4];
        for (int i = 0; i < 8; i++) x[i] = random_half(), w[i] = random_half();
        for (int i = 0; i < 4; i++) start[i] = random_sum();
        bfloat16x8_t rows, channels;
        memcpy(&rows, x, sizeof rows), memcpy(&channels, w, sizeof channels);
        vst1q_f32(by_two, vbfmmlaq_f32(vld1q_f32(start), rows, channels));
        for (int row = 0; row < 2; row++)
            for (int channel = 0; channel < 2; channel++) {
                float one = start[2 * row + channel];
                for (int word = 0; word < 2; word++) {
                    bfloat16x4_t a, b;
                    uint16_t pair_a[4] = {x[4 * row + 2 * word], x[4 * row + 2 * word + 1]};
                    uint16_t pair_b[4] = {w[4 * channel + 2 * word], w[4 * channel + 2 * word + 1]};
                    memcpy(&a, pair_a, sizeof a), memcpy(&b, pair_b, sizeof b);
                    one = vget_lane_f32(vbfdot_f32(vdup_n_f32(one), a, b), 0);
                }
                float other = by_two[2 * row + channel];
                if (memcmp(&one, &other, sizeof one) != 0) {
                    printf("trial %ld, row %d, channel %d: %a by BFDOT, %a by BFMMLA\n", trial, row, channel, one, other);
                    return 1;
                }
                double exact = start[2 * row + channel];
                for (int k = 0; k < 4; k++) {
                    uint32_t a = (uint32_t)x[4 * row + k] << 16, b = (uint32_t)w[4 * channel + k] << 16;
                    float first, second;
                    memcpy(&first, &a, sizeof first), memcpy(&second, &b, sizeof second);
                    exact += (double)first * second;
                }
                inexact += exact != one;
            }
    }
    if (inexact < TRIALS / ROUNDED) printf("only %ld sums were rounded: a test of nothing\n", inexact);
    return inexact < TRIALS / ROUNDED;
}
