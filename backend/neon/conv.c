/* Ordinary convolutions and dense layers of float32, by implicit GEMM and by Winograd's F(4x4, 3x3), for every tile. */
#include "common.h"

#define LN_X LN_F32
typedef float ln_x;
#define LN_POINT_A LN_POINT_A_F32
#define LN_POINT_B LN_POINT_B_F32
#define LN_ONE_OF(type) ((void)(type), LN_F32)
#define LN_SUMS "sums_f32.h"
#define LN_TILE_INSTANCES(name) LN_INSTANCE_OF(name, , LN_F32, LN_F32, LN_F32)
#include "tiles.h"

int64_t ln_gemm_units(const ln_step *step, int64_t images) {
    return ln_pixel_blocks(step, images).all * ln_ceil_div(step->panels, step->nc_panels);
}

int64_t ln_winograd_units(const ln_step *step, int64_t images) {
    return ln_patch_blocks(step, images) * ln_ceil_div(step->panels, step->nc_panels);
}

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
