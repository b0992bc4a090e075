/* int8 by int8 with SDOT (FEAT_DotProd). */
#include "dots.h"

#define LOAD_S32(p) vld1q_s32((const int32_t *)(const void *)(p))
#define STORE_S32(p, v) vst1q_s32((int32_t *)(void *)(p), v)
#define DOT_NAME s8_dot
#define DOT_X int8_t
#define DOT_SUM int32x4_t
#define DOT_VECTOR int8x16_t
#define DOT_OTHER int8x16_t
#define DOT(sum, w, x) vdotq_laneq_s32(sum, w, x, 0)
#define DOT_LOAD LOAD_S32
#define DOT_STORE STORE_S32
#define MR 8
#define NR 3
#include "dot.h"
#define MR 6
#define NR 4
#include "dot.h"
