"""Raw pixels as a model input: what each of the 256 levels of each channel stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import InputError


@dataclass(frozen=True, eq=False)
class PixelInput:
    """table: float32 [channels, 256]; the model's input is table[c, pixel] where an image has the level `pixel`.

    A table, not a mean and a scale: a preprocessing recipe's arithmetic is reproduced to the bit, whatever it is,
    and the convolution's padding stays zero in the model's terms.

    Raises: InputError if the table has another shape.
    """

    table: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.table.ndim != 2 or self.table.shape[1] != 256:
            raise InputError(f"a pixel table has shape {self.table.shape}: [channels, 256] is needed")

    @classmethod
    def affine(cls, mean: tuple[float, ...], scale: float = 1.0) -> PixelInput:
        """(level - mean[c]) * scale in float32."""
        levels = np.arange(256, dtype=np.float32)
        return cls((levels[None, :] - np.array(mean, np.float32)[:, None]) * np.float32(scale))
