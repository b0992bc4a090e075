"""What a response is made of: the ImageNet class 0..999 as one little-endian float32.

That is what MLCommons' reference sends and what its accuracy script decodes by default; all classes are exact in
float32. Performance and accuracy runs send the same bytes, as the rules ask.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

RESPONSE_DTYPE: Final = np.dtype("<f4")


def encode(classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Classes int64 [n] -> contiguous payload float32 [n], four bytes per response."""
    return np.ascontiguousarray(classes, dtype=RESPONSE_DTYPE)


def decode(payload_hex: str) -> int:
    """The class in one entry of mlperf_log_accuracy.json. Raises: ValueError unless it is four bytes in hex."""
    payload = bytes.fromhex(payload_hex)
    if len(payload) != RESPONSE_DTYPE.itemsize:
        raise ValueError(f"a response has {len(payload)} bytes, expected {RESPONSE_DTYPE.itemsize}")
    return int(np.frombuffer(payload, RESPONSE_DTYPE)[0])
