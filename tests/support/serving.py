"""A server in this process, and a plugin that plays through it like in a DAW."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio, Exact
from bsmamba2_pedalboard.server import Server
from support.engines import StubEngine, half
from support.vst3_abi import OFFLINE, REALTIME
from support.vst3_host import (
    Plugin,
)

SERVER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from bsmamba2 import Separator
from bsmamba2_pedalboard.server import Server
from support.engines import StubEngine, half
server = Server(Separator(StubEngine(half)), headroom_ms=50)
print("up", flush=True)
server.run()
"""


@contextmanager
def serving(
    separate: Callable[[Audio], Any] = half, headroom_ms: float = 50, **engine: Any
) -> Iterator[Server]:
    """Runs a server in a thread; ``engine`` are changes of the stub engine's manifest."""
    server = Server(Separator(StubEngine(separate, **engine)), headroom_ms=headroom_ms)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


@contextmanager
def server_process() -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server in a process of its own, whose stem is half of the mixture."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def rendered(plugin: Plugin, audio: Audio, rate: float = 44100, block: int = 512) -> Audio:
    """Renders like a host: with the latency compensated, and to the end."""
    latency = plugin.start(rate, block, OFFLINE)
    return render(plugin, audio, latency, block)


def render(
    plugin: Plugin, audio: Audio | Exact, latency: int, block: int = 512, mode: int = REALTIME
) -> Audio:
    """Renders with a plugin that is running already; ``mode`` is that of every block."""
    padded = np.pad(audio, ((0, 0), (0, latency)))
    starts = range(0, padded.shape[1], block)
    parts = [plugin.process(padded[:, a : a + block], mode=mode) for a in starts]
    return np.concatenate(parts, axis=1)[:, latency:]


def play(
    plugin: Plugin,
    until: Callable[[float], object],
    seconds: float = 20,
    heard: list[Audio] | None = None,
) -> bool:
    """Plays ones, as fast as they are heard, until the last sample of a block fulfils a condition.

    Returns False if it does not in that time. Appends what is heard to ``heard``.
    """
    deadline = time.monotonic() + seconds
    next_block = time.monotonic()
    while True:
        output = plugin.process(np.ones((2, 441)))
        assert np.isfinite(output).all()
        if heard is not None:
            heard.append(output[0])
        if until(float(output[0, -1])):
            return True
        if time.monotonic() > deadline:
            return False
        # A device drops the blocks for which a host was too late.
        next_block = max(next_block + 0.01, time.monotonic())
        time.sleep(max(0.0, next_block - time.monotonic()))


def is_wet(sample: float) -> bool:
    return abs(sample - 0.5) < 1e-3


def is_dry(sample: float) -> bool:
    return sample == 1
