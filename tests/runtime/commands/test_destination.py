"""What ``-o`` names: a folder, the one file of a mix or a stem, or standard output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from bsmamba2 import AudioError
from bsmamba2.commands.destination import destination
from bsmamba2.files.naming import DEFAULT_TEMPLATE
from bsmamba2.files.wav_reader import STDIN
from bsmamba2.files.wav_writer import STDOUT

OPTIONS: dict[str, Any] = {"format": None, "subtype": None, "template": DEFAULT_TEMPLATE}
SONG = Path("song.flac")


@pytest.mark.parametrize("output", [None, Path("stems"), Path("vol. 2"), Path("song.txt")])
def test_a_folder_changes_no_option(output: Path | None) -> None:
    assert destination(output, [SONG], True, OPTIONS) == (output, OPTIONS)


def test_an_existing_folder_may_be_named_like_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "best.wav"
    folder.mkdir()
    assert destination(folder, [SONG], False, OPTIONS) == (folder, OPTIONS)


@pytest.mark.parametrize(
    ("name", "format", "subtype"),
    [
        ("karaoke.mp3", "mp3", None),
        ("a{b}.FLAC", "flac", None),
        ("x.opus", "ogg", "opus"),
        ("x.aif", "aiff", None),
    ],
)
def test_a_file_implies_its_format_and_keeps_its_name(
    name: str, format: str, subtype: str | None
) -> None:
    folder, options = destination(Path("out", name), [SONG], True, OPTIONS)
    assert folder == Path("out")
    assert (options["format"], options["subtype"]) == (format, subtype)
    assert options["template"].format(ext="") + options["suffix"][1:] == name


@pytest.mark.parametrize(
    ("output", "songs", "is_one_file", "changes", "message"),
    [
        ("x.wav", [SONG], False, {}, "must be a folder to write several stems; got 'x.wav'"),
        ("x.wav", [SONG, SONG], True, {}, "must be a folder for several songs"),
        ("x.wav", [Path()], True, {}, "must be a folder for several songs"),
        ("x.m4a", [SONG], True, {}, r"must end with one of \.wav, .*\.mp3; got 'x.m4a'"),
        ("x.wav", [SONG], True, {"template": "{name}.{ext}"}, "must be a folder with --template"),
        ("x.wav", [SONG], True, {"format": "flac"}, "-o and --format must agree"),
        (STDOUT, [SONG, SONG], True, {}, "-o - takes one song"),
        ("out", [STDIN, SONG], True, {}, "- must be the only song"),
    ],
)
def test_contradictions_are_refused(
    output: str, songs: list[Path], is_one_file: bool, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(click.UsageError, match=message):
        destination(Path(output), songs, is_one_file, OPTIONS | changes)


def test_a_terminal_gets_no_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with pytest.raises(AudioError, match="standard output is a terminal"):
        destination(STDOUT, [SONG], True, OPTIONS)
