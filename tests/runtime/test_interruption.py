"""Ctrl-C ends the command with one sentence and status 130, whenever it comes."""

from __future__ import annotations

import signal
import sys

import pytest

from bsmamba2 import interruption
from support.commands import run_python

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")

INTERRUPT = "import os, signal, sys\ndef interrupt(): os.kill(os.getpid(), signal.SIGINT)\n"

WHILE_IMPORTING = """
class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            interrupt()
sys.meta_path.insert(0, Finder())
from bsmamba2.cli import main
main(["doctor"])
"""

WHILE_CLEANING = """
import click
from bsmamba2.cli import main
@main.command
def work():
    try:
        interrupt()
    finally:
        interrupt()
        print("cleaned")
main.get_command = lambda *_: work
main(["work"])
"""

ONCE = """
import click
from bsmamba2.cli import main
@main.command
def work():
    try:
        interrupt()
    finally:
        print("cleaned")
main.get_command = lambda *_: work
main(["work"])
"""


@pytest.mark.parametrize(
    "module", ["click", "bsmamba2.installation", "bsmamba2.commands.doctor", "numpy"]
)
def test_during_an_import_it_is_one_sentence(module: str) -> None:
    result = run_python("-c", INTERRUPT + WHILE_IMPORTING.format(module=module))
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "\nstopped\n")


def test_the_first_lets_the_command_clean_up() -> None:
    result = run_python("-c", INTERRUPT + ONCE)
    assert (result.returncode, result.stdout, result.stderr) == (130, "cleaned\n", "\nstopped\n")


def test_the_second_ends_the_command_at_once() -> None:
    result = run_python("-c", INTERRUPT + WHILE_CLEANING)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "\nstopped\n")


def test_a_program_s_own_handler_is_kept() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for change in (interruption.during_imports, interruption.during_work):
            change()
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_after_the_work_the_handler_is_the_one_before_it() -> None:
    before = signal.getsignal(signal.SIGINT)
    interruption.during_work()
    interruption.after_work()
    assert signal.getsignal(signal.SIGINT) == before
