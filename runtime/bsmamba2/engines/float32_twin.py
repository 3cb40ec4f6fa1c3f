"""A model of reduced precision, with a float32 twin for chunks that overflow.

An export in fp16 or bf16 rounds weights and the inputs of products, but keeps the checkpoint's
names and shapes. So the file's weights, widened to float32, fit the shipped graph of their size,
which computes the same function with more precision.
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
from bsmamba2.formats.protobuf import MappedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bsmamba2.audio.array import Audio
    from bsmamba2.devices.device import Device
    from bsmamba2.engines.protocols import Engine
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.formats.onnx_file import OnnxFile


class ReducedPrecisionOrtEngine(OrtEngine):
    """A model of reduced precision in ONNX Runtime, as a
    :class:`~bsmamba2.engines.protocols.ReducedPrecisionEngine`.

    Args:
        file, device, weights, manifest: as for :class:`~bsmamba2.engines.ort_engine.OrtEngine`.
        load: loads the float32 twin.
    """

    def __init__(
        self,
        file: OnnxFile,
        device: Device,
        load: Callable[[], Engine],
        weights: Mapping[str, Audio] | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        super().__init__(file, device, weights, manifest)
        self._load = load
        self._twin: Engine | None = None
        self._lock = Lock()

    def in_float32(self) -> Engine:
        """See :meth:`bsmamba2.engines.protocols.ReducedPrecisionEngine.in_float32`.

        Raises:
            ModelError: there is no float32 twin.
        """
        with self._lock:
            if self._twin is None:
                self._twin = self._load()
            return self._twin


def widened(file: OnnxFile) -> dict[str, Audio]:
    """Returns the weights of a file in float32, by their names in the checkpoint.

    Raises:
        ModelError: the weights are not inside the file, or their lengths contradict its manifest.
    """
    shapes, read_only = file.manifest.initialisers, mmap.ACCESS_READ
    with file.path.open("rb") as opened, MappedFile(opened.fileno(), 0, access=read_only) as data:
        found = {
            name: _widen(data[place.start : place.stop], file.manifest, shapes[name])
            for name, place in initialisers(data)
            if name in shapes
        }
    if missing := shapes.keys() - found.keys():
        raise ModelError(
            f"{file.path.name} does not contain {min(missing)}, so it cannot run in float32: "
            "export it again"
        )
    return found


def _widen(stored: bytes, manifest: Manifest, shape: tuple[int, ...]) -> Audio:
    count = int(np.prod(shape))
    if len(stored) == 4 * count:
        values = np.frombuffer(stored, "<f4")
    elif len(stored) != 2 * count:
        raise ModelError(
            "a weight does not have the length that the manifest states: export the model again"
        )
    elif manifest.precision == "bf16":
        values = widen_bfloat16(np.frombuffer(stored, STORED_DTYPE))
    else:
        values = np.frombuffer(stored, "<f2")
    return values.astype(np.float32).reshape(shape)
