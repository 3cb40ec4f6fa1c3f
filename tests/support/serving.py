"""A server in this process, and a plugin that plays through it like in a DAW."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard.server import Server
from support.engines import StubEngine, half
from support.vst3_host import Plugin


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


def play(plugin: Plugin, until: Callable[[float], object], seconds: float = 20) -> bool:
    """Plays ones until the last sample of a block fulfils a condition; False if it never does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        output = plugin.process(np.ones((2, 441)))
        assert np.isfinite(output).all()
        if until(float(output[0, -1])):
            return True
        time.sleep(0.01)  # as fast as it is played
    return False


def is_wet(sample: float) -> bool:
    return abs(sample - 0.5) < 1e-3


def is_dry(sample: float) -> bool:
    return sample == 1
