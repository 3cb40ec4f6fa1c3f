"""bfloat16, which NumPy lacks: the upper 16 bits of a float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

STORED_DTYPE = "<u2"
"""The NumPy type to read bfloat16 values with."""


def widen_bfloat16(bits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Converts the bits of bfloat16 values, as uint16, to float32; exact."""
    return (bits.astype("<u4") << 16).view("<f4")
