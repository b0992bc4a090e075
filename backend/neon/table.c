/* The kernels by name, as plans name them; kernels/table.py lists the same for Numba. */
#include "common.h"

/* Names as they are in plans, with "-" written as "_" where element types differ. */
#define LN_NAMES(X)                                                                                                   \
    X(import_f32) X(import_runs) X(import_planes_3) X(import_u8) X(export) X(export_runs)                             \
    X(depthwise) X(max_pool) X(average_pool) X(global_average) X(affine)                                              \
    LN_DEPTHWISE(X, )                                                                                                 \
    X(copy) X(fill) X(binary) X(mean) X(softmax) X(argmax)                                                            \
    LN_TILES(X, conv_gemm, ) LN_TILES(X, conv_winograd, )                                                             \
    X(import_f32_f32_u8) X(import_runs_f32_u8) X(import_planes_3_f32_u8) X(import_u8_f32_u8) X(export_u8)             \
    X(max_pool_u8_u8) X(affine_u8) X(copy_u8) X(fill_u8) X(fill_f32_u8)                                               \
    X(quantize_f32_u8) X(dequantize_u8_f32) X(quantized_add_u8) X(quantized_average_u8)                               \
    X(depthwise_u8_u8) X(depthwise_u8_u8_f32) X(depthwise_3x3_u8)                                                     \
    LN_TILES(X, conv_gemm, _u8) LN_TILES(X, conv_gemm, _u8_f32)                                                       \
    X(import_f32_f32_bf16) X(import_runs_f32_bf16) X(import_planes_3_f32_bf16) X(import_u8_f32_bf16) X(export_bf16)   \
    LN_WINDOWS(X, _bf16) LN_WINDOWS(X, _bf16_f32) LN_WINDOWS(X, _bf16_f32_f32) LN_WINDOWS(X, _bf16_bf16_f32)          \
    LN_MAPS(X, _bf16) LN_MAPS(X, _bf16_f32)                                                                           \
    X(copy_bf16) X(copy_bf16_f32) X(copy_f32_bf16) X(fill_f32_bf16)                                                   \
    X(binary_bf16) X(binary_bf16_f32) X(binary_bf16_f32_f32) X(binary_bf16_bf16_f32)                                  \
    X(binary_f32_bf16) X(binary_f32_bf16_bf16) X(binary_f32_f32_bf16)                                                 \
    X(mean_bf16_f32) X(softmax_bf16_f32) X(argmax_bf16_f32)

/* Convolutions of bfloat16, and what maps or pools it, by the types of y and of the residual. */
#define LN_WINDOWS(X, types)                                                                                          \
    LN_TILES(X, conv_gemm, types) LN_TILES(X, conv_winograd, types) LN_DEPTHWISE(X, types) X(depthwise##types)
#define LN_MAPS(X, types) X(max_pool##types) X(average_pool##types) X(global_average##types) X(affine##types)

/* Those that rows.c makes. */
#define LN_DEPTHWISE(X, types)                                                                                        \
    X(depthwise_3x3_1x1##types) X(depthwise_3x3_2x1##types) X(depthwise_3x3_3x1##types) X(depthwise_3x3_4x1##types)   \
    X(depthwise_3x3_5x1##types) X(depthwise_3x3_6x1##types) X(depthwise_3x3_7x1##types) X(depthwise_3x3_8x1##types)

/* Those that conv.c makes, and simd/isa.py lists. */
#define LN_TILES(X, name, types)                                                                                      \
    X(name##_6x4##types) X(name##_8x3##types) X(name##_7x3##types) X(name##_12x2##types) X(name##_12x1##types)        \
    X(name##_1x8##types)

#define LN_DECLARE(name) LN_KERNEL(name);
LN_NAMES(LN_DECLARE)

static const struct {
    const char *name;
    ln_kernel *kernel;
} ln_table[] = {
#define LN_ENTRY(name) {#name, ln_kernel_##name},
    LN_NAMES(LN_ENTRY)};

int64_t ln_abi(void) { return LN_ABI; }

ln_kernel *ln_kernel_named(const char *name) {
    for (size_t i = 0; i < sizeof ln_table / sizeof *ln_table; i++)
        if (strcmp(ln_table[i].name, name) == 0) return ln_table[i].kernel;
    return NULL;
}
