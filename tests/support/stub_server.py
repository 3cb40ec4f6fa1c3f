"""A server with a stub model, started like a plugin starts the real one: in the background.

    python -m support.stub_server START_SECONDS SECONDS_PER_CHUNK [--background]

The model has two stems: the mixture at a quarter of its level, and the rest.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard.commands import start_in_background
from bsmamba2_pedalboard.server import Server, is_serving, server_folder
from support.engines import StubEngine

CHUNK = 22050
GAIN = 0.25
STARTING = "starting-"
"""Begins the name of a file that exists while a command starts the server."""


def separator(seconds_per_chunk: float = 0.0) -> Separator:
    """Returns the stub model."""

    def separate(chunk: Audio) -> Audio:
        time.sleep(seconds_per_chunk)
        stems: Audio = GAIN * chunk[None]
        return stems

    return Separator(StubEngine(separate, chunk=CHUNK))


def command(start_seconds: float, seconds_per_chunk: float) -> list[str]:
    """Returns the command that starts the server."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); "
    code += "from support.stub_server import main; main()"
    words = [sys.executable, "-c", code, f"{start_seconds:g}", f"{seconds_per_chunk:g}"]
    return [*words, "--background"]


def kill_when_serving(folder: Path) -> None:
    """Waits until the server serves and the command that started it has ended, and kills it."""
    while not is_serving(folder) or is_starting(folder):
        time.sleep(0.02)
    stop(folder)


def stop(folder: Path) -> None:
    """Ends the server, if there is one, also if it is still starting."""
    while is_starting(folder):
        time.sleep(0.02)
    while is_serving(folder):
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
        time.sleep(0.02)


def is_starting(folder: Path) -> bool:
    """Whether a command is starting a server."""
    return any(folder.glob(f"{STARTING}*"))


def main() -> None:
    """Serves, or starts a server and waits for it."""
    start_seconds, seconds_per_chunk = map(float, sys.argv[1:3])
    folder = server_folder()
    if "--background" in sys.argv:
        mark = folder / f"{STARTING}{os.getpid()}"
        mark.touch()
        try:
            start_in_background(command(start_seconds, seconds_per_chunk)[:-1])
        finally:
            mark.unlink()
        return
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    time.sleep(start_seconds)
    server = Server(separator(seconds_per_chunk), headroom_ms=50)
    (folder / "pid").write_text(str(os.getpid()))
    server.run(idle_exit=5)


if __name__ == "__main__":
    main()
