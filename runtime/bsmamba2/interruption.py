"""Ctrl-C ends the command with a sentence, even during its imports, and even if pressed twice.

The command line imports this module first. Libraries that use bsmamba2 never do.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import NoReturn

STATUS = 130
"""The exit status of a command that was stopped."""


def end_at_once(*_: object) -> NoReturn:
    """Ends this process. Files that it was writing keep their hidden names."""
    shows_cursor = b"\x1b[?25h" if os.isatty(2) else b""  # a progress display hides it
    os.write(2, shows_cursor + b"\nstopped\n")
    os._exit(STATUS)


def during_imports() -> None:
    """From now on Ctrl-C ends the process at once: there is nothing to clean up yet."""
    _replace(signal.default_int_handler, end_at_once)


def after_imports() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt again."""
    _replace(end_at_once, signal.default_int_handler)


def during_work() -> None:
    """From now on the first Ctrl-C raises KeyboardInterrupt, and the second ends the process."""
    _replace(signal.default_int_handler, _first)


def after_work() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt again, unless it was pressed."""
    _replace(_first, signal.default_int_handler)


def _first(*_: object) -> NoReturn:
    signal.signal(signal.SIGINT, end_at_once)
    raise KeyboardInterrupt


def _replace(old: object, new: object) -> None:
    """Changes what Ctrl-C does, unless the program around us has its own handler."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) == old:
        signal.signal(signal.SIGINT, new)  # type: ignore[arg-type]
