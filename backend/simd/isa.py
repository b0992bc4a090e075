"""The instruction sets that kernels are written for, as records. (`tags` makes types for jitted code of them.)

May import: nothing of ours, and not Numba: plans are made where it is not installed, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Tile:
    """A register tile of the GEMM micro-kernel: MR output pixels by NR vectors of output channels."""

    mr: int
    nr: int

    def __str__(self) -> str:
        return f"{self.mr}x{self.nr}"


@dataclass(frozen=True)
class Isa:
    """One instruction set.

    lanes: float32 elements per vector. fma: whether a fused multiply-add exists; without it products are rounded
    before they are added. cpu_flags: what the CPU must have, by the names of /proc/cpuinfo. architecture: what uname(2)
    must call the machine, "" for any. llvm_cpu: the LLVM processor to compile for when this ISA is asked for on a
    machine that has a better one. tiles: what the GEMM micro-kernel is compiled as; within one NR the larger MR first.
    depthwise_mr: most pixels of a row that the depthwise micro-kernel takes at once; its sums, and columns and taps on
    their way, must fit the registers. broadcast_loads: whether a load can repeat one element in all lanes at no cost to
    the arithmetic units, as on x86; else multiply-adds take a lane of a vector of neighbours. extensions: those of
    `EXTENSIONS` that the CPU has and code may use.

    Tile shapes: MR * NR accumulators + NR weight vectors + 1 broadcast must fit the registers. Wide tiles (NR = 4)
    load least per multiply-add: (MR + NR) loads feed MR * NR of them, and cores load two vectors a cycle at best.
    The smaller MR beside the large one keeps the last tile of a 7x7 picture (49 pixels) full. A single row is for
    dense layers on one image: eight chains hide the latency of the multiply-add.
    """

    name: str
    lanes: int
    fma: bool
    cpu_flags: tuple[str, ...]
    architecture: str
    llvm_cpu: str
    tiles: tuple[Tile, ...]
    depthwise_mr: int
    broadcast_loads: bool = True
    extensions: tuple[str, ...] = ()

    @property
    def signed_dots(self) -> bool:
        """Whether the dot product of bytes takes those of x as signed ones, less 128: SDOT has no other form."""
        return NEON_DOT in self.extensions and NEON_I8MM not in self.extensions


AVX512_BF16: Final = "avx512_bf16"
"""Dot products of pairs of bfloat16, and rounding to bfloat16."""

AVX512_VNNI: Final = "avx512_vnni"
AVX_VNNI: Final = "avx_vnni"
"""Dot products of four bytes, in 512 and in 256 bits."""

NEON_DOT: Final = "asimddp"
"""FEAT_DotProd: dot products of four bytes, both signed or both unsigned."""

NEON_I8MM: Final = "i8mm"
"""FEAT_I8MM: dot products of unsigned by signed bytes, and of two by two of eight."""

NEON_BF16: Final = "bf16"
"""FEAT_BF16: dot products of pairs of bfloat16, and of two by two of them; rounding to bfloat16."""

EXTENSIONS: Final = {
    "avx512": (AVX512_BF16, AVX512_VNNI),
    "avx2": (AVX_VNNI,),
    "neon": (NEON_DOT, NEON_I8MM, NEON_BF16, "asimdhp", "sve"),
}
"""By ISA: flags of /proc/cpuinfo for instructions that not every CPU of the ISA has. Lanes, tiles and the order of
summation do not depend on them, only whether something is one instruction or several."""

BF16_EXTENSIONS: Final = {"avx512": AVX512_BF16, "neon": NEON_BF16}
"""By ISA: the extension with which it multiplies bfloat16."""

AVX512: Final = Isa(
    "avx512",
    lanes=16,
    fma=True,
    cpu_flags=("avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"),
    architecture="x86_64",
    llvm_cpu="skylake-avx512",
    tiles=(Tile(6, 4), Tile(5, 4), Tile(8, 3), Tile(12, 2), Tile(10, 2), Tile(8, 2), Tile(12, 1), Tile(1, 8)),
    depthwise_mr=8,
)
AVX2: Final = Isa(
    "avx2",
    lanes=8,
    fma=True,
    cpu_flags=("avx2", "fma"),
    architecture="x86_64",
    llvm_cpu="haswell",
    tiles=(Tile(6, 2), Tile(5, 2), Tile(4, 3), Tile(12, 1), Tile(1, 8)),
    depthwise_mr=7,
)
NEON: Final = Isa(
    "neon",
    lanes=4,
    fma=True,
    cpu_flags=("asimd",),
    architecture="aarch64",
    llvm_cpu="generic",
    tiles=(Tile(6, 4), Tile(8, 3), Tile(7, 3), Tile(12, 2), Tile(12, 1), Tile(1, 8)),
    depthwise_mr=8,
    broadcast_loads=False,
)
GENERIC: Final = Isa(
    "generic",
    lanes=4,
    fma=False,
    cpu_flags=(),
    architecture="",
    llvm_cpu="generic",
    tiles=(Tile(5, 2), Tile(4, 2), Tile(9, 1), Tile(1, 8)),
    depthwise_mr=7,
)

ISAS: Final = (AVX512, AVX2, NEON, GENERIC)
"""Best first."""
