"""Limits the memory that an untrusted ONNX file may take while it is loaded, checked and first run.

A file of a few hundred bytes may ask for any amount: a constant of any shape, a tensor repeated any
number of times, a product of everything with everything. Shapes depend on values that only a run
computes, so the operating system counts. Only Linux does; elsewhere there is no limit. Other
threads share the limit, which is why it leaves several hundred megabytes, and is in force only
while the file is loaded and checked, and in the first run of each greater length: memory may grow
with the square of the length. A file whose memory depends on the samples themselves can still take
more in a later run.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from bsmamba2.devices.device import Device
from bsmamba2.errors import ModelError
from bsmamba2.formats.onnx_file import OnnxFile

if sys.platform == "linux":
    import resource

VARIABLE = "BSMAMBA2_MODEL_MEMORY"
"""The environment variable that turns the limit off if it is ``off``."""

BASE_BYTES = 512 << 20
PER_BYTE_OF_FILE = 16
"""A model takes a few times its weights: folded, packed, and in proportion to its width."""

PER_BYTE_OF_AUDIO = 512
MAX_AUDIO_BYTES = 4 << 20
"""11 s of stereo, the longest chunk of a network that takes only whole chunks."""

PER_CORE_BYTES = 16 << 20
"""ONNX Runtime starts a thread on each core, whose stack is counted in full."""

_lock = threading.Lock()
_budgets: list[int] = []
_before = (-1, -1)


def budget_bytes(file: OnnxFile, audio_bytes: int) -> int:
    """Returns the most memory that a model may take for this much audio in float32."""
    size = 0
    for path in (file.path, *file.data):
        with contextlib.suppress(OSError):  # the session reports what is missing or misnamed
            size += path.stat().st_size
    cores = PER_CORE_BYTES * (os.cpu_count() or 1)
    audio = PER_BYTE_OF_AUDIO * min(audio_bytes, MAX_AUDIO_BYTES)
    return BASE_BYTES + PER_BYTE_OF_FILE * size + audio + cores


@contextlib.contextmanager
def limited(file: OnnxFile, device: Device, audio_bytes: int) -> Iterator[None]:
    """Limits what this process may allocate meanwhile, to what the model may take on a CPU.

    Args:
        file: the model that is loaded and checked.
        device: where; there is no limit on a GPU.
        audio_bytes: length of the audio that it separates meanwhile, in float32.

    Raises:
        ModelError: the model takes more.
    """
    if sys.platform != "linux" or device.kind != "cpu" or os.environ.get(VARIABLE) == "off":
        yield
        return
    most = budget_bytes(file, audio_bytes)
    _enter(most)
    try:
        yield
    except (MemoryError, ModelError) as error:
        if isinstance(error, ModelError) and not _is_about_memory(error):
            raise
        raise ModelError(
            f"{file.path.name} must be loaded and run in {most / 1e9:.1f} GB of memory; got a "
            f"request for more: export it again, or set {VARIABLE}=off if you trust the file"
        ) from None
    finally:
        _leave(most)


class FirstRuns:
    """Limits the first run of each length that is greater than all before it.

    Args:
        file: the model.
        device: where it runs.
    """

    def __init__(self, file: OnnxFile, device: Device) -> None:
        self._file = file
        self._device = device
        self._passed = 0

    @contextlib.contextmanager
    def limited(self, audio_bytes: int) -> Iterator[None]:
        """Limits a run on audio of this length, unless one of the same length has passed.

        Raises:
            ModelError: the model takes more memory than it may.
        """
        if audio_bytes <= self._passed:
            yield
            return
        with limited(self._file, self._device, audio_bytes):
            yield
        self._passed = max(self._passed, audio_bytes)


def _is_about_memory(error: ModelError) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("bad_alloc", "bad allocation", "bfc_arena", "allocate"))


def _enter(most: int) -> None:
    global _before
    with _lock:
        if not _budgets:
            _before = resource.getrlimit(resource.RLIMIT_DATA)
        _budgets.append(most)
        known = [limit for limit in _before if limit != resource.RLIM_INFINITY]
        limit = min([_data_bytes() + sum(_budgets), *known])
        resource.setrlimit(resource.RLIMIT_DATA, (limit, _before[1]))


def _leave(most: int) -> None:
    with _lock:
        _budgets.remove(most)
        if not _budgets:
            resource.setrlimit(resource.RLIMIT_DATA, _before)


def _data_bytes() -> int:
    """Returns what the process has already, as the limit counts it."""
    found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 1 << 46
