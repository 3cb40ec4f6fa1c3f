"""Measures how fast a model runs here, in a process of its own, whose memory is then the model's.

    python -m bsmamba2.commands.speed MODEL DEVICE SPEED SECONDS    # prints a JSON object

The engine of each model runs chunks of noise, whose values do not matter for the time, and the time
for a song follows from the chunks that it needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from bsmamba2.devices.products import DEFAULT_SPEED
from bsmamba2.errors import DeviceError, Error
from bsmamba2.models.check import FAST_SNR_DB, check_input, reproduce
from bsmamba2.models.loaded_model import LoadedModel
from bsmamba2.pipeline.overlap_add import hop_samples
from bsmamba2.separator import Separator

SONG_S = 240.0
"""The length of the song whose time is stated."""

_STATUS = Path("/proc/self/status")


def measure(model: str, device: str, speed: str, seconds: float) -> dict[str, Any]:
    """Measures one model at one speed.

    Args:
        model, device, speed: as for :class:`bsmamba2.Separator`.
        seconds: how long to measure, loading included; every model runs at least one chunk.

    Returns:
        ``real_time``, the seconds of audio per second; ``song_seconds``, for a song of
        :data:`SONG_S`, loading included; ``load_seconds``; ``chunks``, how many were timed;
        ``memory_bytes``, the most of this process, or None if unknown; ``check_db``, the SNR of the
        model's check, or None if it carries none; ``device`` and ``products``.

    Raises:
        Error: the model cannot run, or its output is wrong.
    """
    start = time.perf_counter()
    separator = Separator(model, device, speed=speed)
    load_s = time.perf_counter() - start
    least_db = None if speed == DEFAULT_SPEED else FAST_SNR_DB
    checks = [reproduce(m.engine, least_db) for m in separator.models if m.engine.manifest.check]
    song_s, timed = 0.0, 0
    for number, one in enumerate(separator.models, 1):
        share = seconds * number / len(separator.models)
        times = _chunk_times(one, start + share)
        timed += len(times)
        song_s += median(times) * chunks_of_song(one, SONG_S)
    return {
        "real_time": SONG_S / song_s,
        "song_seconds": song_s + load_s,
        "load_seconds": load_s,
        "chunks": timed,
        "memory_bytes": peak_memory(),
        "check_db": min(checks) if len(checks) == len(separator.models) else None,
        "device": separator.device,
        "products": separator.products,
    }


def measure_alone(model: str, device: str, speed: str, seconds: float) -> dict[str, Any]:
    """Works like :func:`measure`, in a new process.

    Raises:
        Error: see :func:`measure`; or the process was ended.
    """
    command = [sys.executable, "-m", __name__, model, device, speed, str(seconds)]
    root = str(Path(__file__).parents[2])
    found = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(found)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = run.stdout.splitlines()
    if run.returncode or not lines:
        last = next(iter(run.stderr.splitlines()[-1:]), "")
        raise DeviceError(f"the measurement ended with status {run.returncode}: {last}".strip(": "))
    result: dict[str, Any] = json.loads(lines[-1])
    if "error" in result:
        raise DeviceError(result["error"])
    return result


def chunks_of_song(model: LoadedModel, seconds: float) -> int:
    """Returns how many chunks a song of some seconds needs, see
    :mod:`bsmamba2.pipeline.overlap_add`."""
    manifest = model.manifest
    hop = hop_samples(manifest.chunk, manifest.overlap)
    rest = round(seconds * manifest.sample_rate) - manifest.chunk
    return 1 + max(0, -(-rest // hop))


def peak_memory() -> int | None:
    """Returns the most memory that this process has used so far, in bytes; None if unknown."""
    try:  # the maximum of getrusage may be that of the process that started this one
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None


def _chunk_times(model: LoadedModel, deadline: float) -> list[float]:
    """Returns the time of each chunk until the deadline; the first one only if it is the last."""
    manifest = model.manifest
    times: list[float] = []
    noise = check_input(0, manifest.channels, manifest.chunk)
    while not times or time.perf_counter() + times[-1] < deadline:
        start = time.perf_counter()
        model.engine.run(noise)
        times.append(time.perf_counter() - start)
    return times[1:] or times


def main() -> None:
    model, device, speed, seconds = sys.argv[1:]
    try:
        result = measure(model, device, speed, float(seconds))
    except Error as error:
        result = {"error": str(error)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
