"""Raw pixels as a model input: what each of the 256 levels of each channel stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import InputError


@dataclass(frozen=True, eq=False, repr=False)
class PixelInput:
    """table: float32 [channels, 256]; the model's input is table[c, pixel] where an image has the level `pixel`.

    A table, not a mean and a scale: a preprocessing recipe's arithmetic is reproduced to the bit, whatever it is,
    and the convolution's padding stays zero in the model's terms.

    Raises: InputError if the table has another shape or dtype, or values that are not finite.
    """

    table: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.table.ndim != 2 or self.table.shape[1] != 256 or len(self.table) == 0:
            raise InputError(f"a pixel table has shape {self.table.shape}: [channels, 256] is needed")
        if self.table.dtype != np.float32:
            raise InputError(f"a pixel table has dtype {self.table.dtype}: float32 is needed")
        if not np.isfinite(self.table).all():
            raise InputError("a pixel table holds values that are not finite: give finite ones")

    def __repr__(self) -> str:
        """Channels and range; 256 numbers for each channel would help nobody."""
        return f"PixelInput(channels={len(self.table)}, values={self.table.min():g}..{self.table.max():g})"

    @classmethod
    def affine(cls, mean: tuple[float, ...], scale: float = 1.0) -> PixelInput:
        """(level - mean[c]) * scale in float32. mean: a number for each channel. Raises: InputError."""
        needed = f"mean={mean!r}: a number for each channel is needed, as in (123.68, 116.78, 103.94)"
        try:
            means = np.array(mean, np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(needed) from error
        if means.ndim != 1:
            raise InputError(needed)
        levels = np.arange(256, dtype=np.float32)
        return cls((levels[None, :] - means[:, None]) * np.float32(scale))
