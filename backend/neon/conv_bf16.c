/* conv.c for x of bfloat16, by dot products of pairs; y and the residual are bfloat16 or float32. */
#include "pair_dots.h"

#define LN_X LN_BF16
typedef ln_half ln_x;
#define LN_POINT_A LN_POINT_A_BF16
#define LN_POINT_B LN_POINT_B_BF16
#define LN_ONE_OF(type) ((type) == LN_F32 ? LN_F32 : LN_BF16)
#define LN_SUMS "sums_bf16.h"
#define LN_TILE_INSTANCES(name) LN_INSTANCES_OF_BF16_OF(name)
#define LN_INSTANCES_OF_BF16_OF(name) LN_INSTANCES_OF_BF16(name)
#include "tiles.h"

#define MR 6
#define NR 4
#include "tile.h"
#define MR 8
#define NR 3
#include "tile.h"
#define MR 7
#define NR 3
#include "tile.h"
#define MR 12
#define NR 2
#include "tile.h"
#define MR 12
#define NR 1
#include "tile.h"
#define MR 1
#define NR 8
#include "tile.h"
