"""The progress of a batch is shown only on a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from bsmamba2.batch.plan import FilePlan, OutputOptions
from bsmamba2.commands.display import Display, describe_guesses, length, setting_value
from support.commands import ENVIRONMENT, STUB_PROGRAM
from support.engines import Stubs
from support.fixtures import WriteSong
from support.models import MANIFEST


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (425, "7:05"), (11225, "3:07:05")],
)
def test_a_length_is_shown_in_minutes_and_from_an_hour_on_in_hours(
    seconds: float, text: str
) -> None:
    assert length(seconds) == text


def test_without_a_terminal_nothing_is_shown(
    stub: Stubs, song: WriteSong, capsys: pytest.CaptureFixture[str]
) -> None:
    plan: FilePlan = OutputOptions().plan(song(), None, stub.half().manifest)
    with Display() as display:
        display.begin([plan, plan])
        display.song(plan)
        display.report(0.5, 1.0, 3.0)
        display.ended(plan)
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_progress_is_on_the_terminal_and_results_are_in_the_pipe(song: WriteSong) -> None:
    paths = [str(song(name, samples=5000)) for name in ("a.wav", "b.wav")]
    terminal, end = os.openpty()
    command = [sys.executable, "-c", STUB_PROGRAM, "separate", *paths, "--json"]
    environment = ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=end) as process:
        os.close(end)
        shown = read_all(terminal)
        assert process.stdout is not None
        piped = process.stdout.read().decode()
    assert "2 of 2 songs" in shown
    assert [json.loads(line)["song"] for line in piped.splitlines()] == paths


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_one_terminal_every_path_has_its_own_line_and_no_bar_is_left(song: WriteSong) -> None:
    paths = [song(f"{name} {'long ' * 30}.wav", samples=5000) for name in "abc"]
    stems = [p.with_name(f"{p.stem}_{s}.wav") for p in paths for s in ("vocals", "instrumental")]
    terminal, end = os.openpty()
    command = [sys.executable, "-c", STUB_PROGRAM, "separate", *map(str, paths)]
    environment = ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, env=environment, stdout=end, stderr=end):
        os.close(end)
        lines = screen(read_all(terminal))
    assert lines[0] == "stub on cpu"
    assert lines[1].startswith("3 songs, 0:00 of audio; 6 files into ")
    assert lines[2:] == [str(stem) for stem in stems]


def screen(shown: str) -> list[str]:
    """Returns the lines of a terminal of unlimited width after this output."""
    lines, row, column = [""], 0, 0
    for sequence, count, kind, text in re.findall(
        r"(\x1b\[\??(\d*)[\d;]*([A-Za-z]))|([^\x1b])", shown
    ):
        if text == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif text == "\r":
            column = 0
        elif text:
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + 1 :]
            column += 1
        elif kind == "A":
            row = max(0, row - int(count or 1))
        elif kind == "K":
            assert count == "2", sequence
            lines[row] = ""
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.rstrip() for line in lines]


def read_all(terminal: int) -> str:
    """Reads until the other end is closed."""
    parts = []
    while True:
        try:
            parts.append(os.read(terminal, 1 << 16))
        except OSError:
            os.close(terminal)
            return b"".join(parts).decode()


def test_settings_are_shown_as_people_write_them() -> None:
    manifest = MANIFEST.replace(chunk=66150, zero_dc=True)
    names = ("stems", "hop", "chunk", "zero_dc", "normalize")
    shown = [setting_value(manifest, name) for name in names]
    assert shown == ["vocals", "4", "1.5 s", "on", "off"]


def test_assumed_settings_are_described_only_if_there_are_any() -> None:
    assert describe_guesses((), MANIFEST) == ""
    expected = "gain: assumed hop 4; zero_dc off; --config YAML states them"
    assert describe_guesses(("hop", "zero_dc"), MANIFEST) == expected
