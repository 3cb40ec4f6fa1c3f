"""A server in this process, and a plugin that plays through it as in a DAW."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import numpy as np

from bsmamba2 import Separator
from bsmamba2_pedalboard.server import Server
from support.engines import StubEngine, half


@contextmanager
def serving(separate=half, headroom_ms=50, **engine):
    server = Server(Separator(StubEngine(separate, **engine)), headroom_ms=headroom_ms)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def play(plugin, until, seconds=20):
    """Plays ones until the last sample of a block fulfils a condition; True if it did."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        output = plugin.process(np.ones((2, 441)))
        assert np.isfinite(output).all()
        if until(output[0, -1]):
            return True
        time.sleep(0.005)
    return False


def is_wet(sample):
    return abs(sample - 0.5) < 1e-3


def is_dry(sample):
    return sample == 1
