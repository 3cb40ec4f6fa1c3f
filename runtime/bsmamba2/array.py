"""The one array type of the runtime."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Audio: TypeAlias = npt.NDArray[np.float32]
"""float32 samples, (channels, samples) unless said otherwise."""
