/* bfloat16 by bfloat16 into float32 with BFDOT and BFMMLA (FEAT_BF16).
 *
 * Both add pairs of products before they add to the sum, and round as the CPU's FPCR and FEAT_EBF16 say: results are
 * within the bound of a sum of products, not equal bits between CPUs.
 */
#include "dots.h"

#define DOT_NAME bf16_dot
#define DOT_X bfloat16_t
#define DOT_SUM float32x4_t
#define DOT_VECTOR bfloat16x8_t
#define DOT_OTHER bfloat16x8_t
#define DOT(sum, w, x) vbfdotq_laneq_f32(sum, w, x, 0)
#define DOT_LOAD vld1q_f32
#define DOT_STORE vst1q_f32
#define MR 8
#define NR 3
#include "dot.h"
#define MR 6
#define NR 4
#include "dot.h"

#define MM_NAME bf16_mm
#define MM_X bfloat16_t
#define MM_SUM float32x4_t
#define MM_VECTOR bfloat16x8_t
#define MM_OTHER bfloat16x8_t
#define MM(sum, x, w) vbfmmlaq_f32(sum, x, w)
#define MM_LOAD vld1q_f32
#define MM_STORE vst1q_f32
#define MM_LOW_TWICE(v) vcombine_f32(vget_low_f32(v), vget_low_f32(v))
#define MM_HIGH_TWICE(v) vcombine_f32(vget_high_f32(v), vget_high_f32(v))
#define MM_LOWS(a, b) vcombine_f32(vget_low_f32(a), vget_low_f32(b))
#define MM_HIGHS(a, b) vcombine_f32(vget_high_f32(a), vget_high_f32(b))
#define MR 8
#define NR 3
#include "matrix.h"
