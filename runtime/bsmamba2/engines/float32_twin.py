"""A model of reduced precision, and its twin in float32 for the chunks that overflow.

An export in fp16 or bf16 narrows products and rounds what they multiply with; names and shapes stay
the checkpoint's. So the weights of the file, widened, fit the shipped graph of their size, and that
computes in float32 what the file computes with fewer digits.
"""

from __future__ import annotations

import mmap
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.errors import ModelError
from bsmamba2.formats.bfloat16 import STORED_DTYPE, widen_bfloat16
from bsmamba2.formats.onnx_file import initialisers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bsmamba2.audio.array import Audio
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.formats.onnx_file import OnnxFile
    from bsmamba2.formats.protocols import Engine


class ReducedPrecisionOrtEngine(OrtEngine):
    """A model of reduced precision in ONNX Runtime, as a
    :class:`~bsmamba2.formats.protocols.ReducedPrecisionEngine`.

    Args:
        load: makes the twin in float32 from widened weights.
    """

    def __init__(
        self,
        file: OnnxFile,
        device: str,
        manifest: Manifest,
        load: Callable[[Mapping[str, Audio]], Engine],
    ) -> None:
        super().__init__(file, device, None, manifest)
        self._file = file
        self._load = load
        self._twin: Engine | None = None
        self._lock = Lock()

    def in_float32(self) -> Engine:
        """See :meth:`bsmamba2.formats.protocols.ReducedPrecisionEngine.in_float32`.

        Raises:
            ModelError: the weights lie beside the file, or are of a size without a shipped graph.
        """
        with self._lock:
            if self._twin is None:
                self._twin = self._load(widened(self._file))
            return self._twin


def widened(file: OnnxFile) -> dict[str, Audio]:
    """The weights of a file in float32, by their names in the checkpoint.

    Raises:
        ModelError: they do not lie in the file, or not with the lengths that its manifest states.
    """
    shapes, read_only = file.manifest.initialisers, mmap.ACCESS_READ
    with file.path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=read_only) as data:
        found = {
            name: _wide(data[place.start : place.stop], file.manifest, shapes[name])
            for name, place in initialisers(data)
            if name in shapes
        }
    if missing := shapes.keys() - found.keys():
        raise ModelError(
            f"{file.path.name} does not hold {min(missing)}, so it cannot be run in float32: "
            "export it again"
        )
    return found


def _wide(stored: bytes, manifest: Manifest, shape: tuple[int, ...]) -> Audio:
    count = int(np.prod(shape))
    if len(stored) == 4 * count:
        values = np.frombuffer(stored, "<f4")
    elif len(stored) != 2 * count:
        raise ModelError("a weight has not the length that the manifest states: export it again")
    elif manifest.precision == "bf16":
        values = widen_bfloat16(np.frombuffer(stored, STORED_DTYPE))
    else:
        values = np.frombuffer(stored, "<f2")
    return values.astype(np.float32).reshape(shape)
