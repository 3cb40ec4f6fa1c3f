"""``bsmamba2 ui`` in a process of its own, with a slow stub engine instead of every model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.commands import ENVIRONMENT

PROGRAM = """
import os, sys, time
import bsmamba2.models.loaded_model
import bsmamba2.ui.sessions
from bsmamba2 import cli
from support.engines import StubEngine, StubModel, half

def slow(chunk):
    with open(os.environ["RUNS"], "a") as runs:
        runs.write("x")
    time.sleep(0.1)
    return half(chunk)

class Clock:
    # Runs ahead of the real one by the size of a file, in seconds.
    @staticmethod
    def monotonic():
        ahead = os.environ["AHEAD"]
        return time.monotonic() + (os.path.getsize(ahead) if os.path.exists(ahead) else 0)

bsmamba2.ui.sessions.time = Clock
model = StubModel(StubEngine(slow, chunk=22050, stems=("vocals",)))
bsmamba2.models.loaded_model.open_model = lambda *_, **__: model
cli.main(["ui", "--no-browser", "--port", "0", *sys.argv[1:]], prog_name="bsmamba2")
"""


class UiServer:
    """A running page."""

    def __init__(self, url: str, process: subprocess.Popen[str], folder: Path) -> None:
        self.url = url
        self.process = process
        self.runs = folder / "runs"
        self.ahead = folder / "ahead"
        self.errors = folder / "errors"
        """What it printed to standard error."""
        self.temporary = folder / "tmp"
        """Where the page keeps uploads and results."""

    def count_runs(self) -> int:
        """Returns how many chunks were separated so far."""
        return self.runs.stat().st_size if self.runs.exists() else 0

    def kept_files(self) -> list[str]:
        """Returns the names of all uploads and results that exist.

        Gradio also leaves empty files, one for each song of an event.
        """
        found = self.temporary.glob("bsmamba2-ui-*/**/*")
        return sorted(path.name for path in found if path.is_file() and path.stat().st_size)

    def let_pass(self, seconds: int) -> None:
        """Sets the clock of the idle time forward."""
        self.ahead.write_bytes(bytes(seconds))

    def stop(self, number: int = signal.SIGINT) -> int:
        """Presses Ctrl-C, or sends another signal, and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def ui_server(folder: Path, *arguments: str) -> Iterator[UiServer]:
    """Runs the page, with arguments of the command, until the end of the block."""
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = ENVIRONMENT | {
        "RUNS": str(folder / "runs"),
        "AHEAD": str(folder / "ahead"),
        "TMPDIR": str(temporary),
        "BSMAMBA2_CACHE": os.environ["BSMAMBA2_CACHE"],
        "PYTHONUNBUFFERED": "1",
    }
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout
        yield UiServer(process.stdout.readline().split()[0], process, folder)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
