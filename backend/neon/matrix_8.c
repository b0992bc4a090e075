/* int8 weights with int8 or uint8 by SMMLA, USMMLA and SUDOT (FEAT_I8MM). */
#include "dots.h"

#define LOAD_S32(p) vld1q_s32((const int32_t *)(const void *)(p))
#define STORE_S32(p, v) vst1q_s32((int32_t *)(void *)(p), v)
#define DOT_NAME u8_dot
#define DOT_X uint8_t
#define DOT_SUM int32x4_t
#define DOT_VECTOR int8x16_t
#define DOT_OTHER uint8x16_t
#define DOT(sum, w, x) vsudotq_laneq_s32(sum, w, x, 0)
#define DOT_LOAD LOAD_S32
#define DOT_STORE STORE_S32
#define MR 8
#define NR 3
#include "dot.h"

#define MM_SUM int32x4_t
#define MM_LOAD LOAD_S32
#define MM_STORE STORE_S32
#define MM_LOW_TWICE(v) vcombine_s32(vget_low_s32(v), vget_low_s32(v))
#define MM_HIGH_TWICE(v) vcombine_s32(vget_high_s32(v), vget_high_s32(v))
#define MM_LOWS(a, b) vcombine_s32(vget_low_s32(a), vget_low_s32(b))
#define MM_HIGHS(a, b) vcombine_s32(vget_high_s32(a), vget_high_s32(b))
#define MM_VECTOR int8x16_t

#define MM_NAME s8_mm
#define MM_X int8_t
#define MM_OTHER int8x16_t
#define MM(sum, x, w) vmmlaq_s32(sum, x, w)
#define MR 8
#define NR 3
#include "matrix.h"
#undef MM_NAME
#undef MM_X
#undef MM_OTHER
#undef MM

#define MM_NAME u8_mm
#define MM_X uint8_t
#define MM_OTHER uint8x16_t
#define MM(sum, x, w) vusmmlaq_s32(sum, x, w)
#define MR 8
#define NR 3
#include "matrix.h"
