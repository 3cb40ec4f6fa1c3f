"""Helpers for error messages: one printable line from any text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.errors import (
    first_line,
    for_command_line,
    not_one_of,
    one_line,
    printable,
    shown,
)


@given(st.text(), st.integers(0, 300))
def test_printable_text_is_one_short_line(text: str, limit: int) -> None:
    line = printable(text, limit)
    assert line.isprintable()
    assert len(line) <= limit + 1


@given(st.text())
def test_a_short_printable_text_is_unchanged(text: str) -> None:
    if text.isprintable():
        assert printable(text, len(text)) == text


class MockLibsndfileError(Exception):
    error_string = "Format not recognised.\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad header"), "bad header"),
        (ValueError("\n  bad header.\n  more"), "bad header"),
        (FileNotFoundError(2, "No such file", "song.wav"), "No such file"),
        (
            MockLibsndfileError("Error opening 'song.wav': Format not recognised."),
            "Format not recognised",
        ),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("x\x1b[31m"), "x�[31m"),
    ],
)
def test_the_first_line_is_the_cause_without_the_path(error: Exception, line: str) -> None:
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("use device='cpu'", "use --device cpu"),
        ("or allow it with overwrite=True", "or allow it with --overwrite"),
        ("use clip='float', or wait", "use --clip float, or wait"),
        ("lookahead_ms must be in 1..2", "--lookahead-ms must be in 1..2"),
        ("device must be cpu; a/block_ms.wav", "device must be cpu; a/block_ms.wav"),
        ("target=1 or x='y' stays", "target=1 or x='y' stays"),
    ],
)
def test_the_command_line_prints_arguments_as_options(message: str, printed: str) -> None:
    assert for_command_line(message) == printed


def test_a_refused_word_is_shown_with_the_allowed_ones() -> None:
    assert not_one_of("clip", ("float", "clip"), "x") == "clip must be one of float, clip; got 'x'"


def test_a_line_has_no_letter_that_acts_on_the_terminal() -> None:
    assert one_line(Path("a\x1b[31m\n\udc9b\u202e.flac")) == "a�[31m���.flac"


def test_bytes_of_a_name_that_are_not_text_stay_in_a_line() -> None:
    assert one_line("caf\udce9") == "caf\udce9"


@pytest.mark.parametrize(
    "value",
    [list(range(1 << 20)), "x" * (1 << 20), {k: k for k in range(1 << 16)}, 10**5000],
    ids=["list", "text", "mapping", "number"],
)
def test_a_huge_value_is_shown_in_a_short_line(value: object) -> None:
    assert 0 < len(shown(value)) <= 201


def test_a_value_that_holds_itself_many_times_is_shown_at_once() -> None:
    value: object = []
    for _ in range(60):
        value = [value] * 9
    assert shown(value).startswith("[[[[[...]")


def test_a_small_value_is_shown_as_python_writes_it() -> None:
    for value in (3, "x", (1, 2), {"a": [1.5]}, None):
        assert shown(value) == repr(value)
