"""Printing never stops the work: names of any bytes, closed descriptors, full disks and pipes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bsmamba2.commands.printing import ERRORS, LenientStream
from support.commands import ENVIRONMENT, STUB_PROGRAM
from support.fixtures import WriteSong

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors and /dev/full")


def separate(redirection: str, *arguments: Path, encoding: str = "utf-8") -> tuple[int, bytes]:
    """Runs the command in a shell; its status, and what it printed to both streams."""
    command = ["bash", "-c", f'"$@" {redirection}', "", sys.executable, "-c", STUB_PROGRAM]
    environment = ENVIRONMENT | {"BSMAMBA2_CACHE": os.environ["BSMAMBA2_CACHE"]}
    done = subprocess.run(
        [*command, "separate", *map(os.fsencode, arguments)],
        env=environment | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_do_not_matter(song: WriteSong, redirection: str) -> None:
    path = song("song.mp3", samples=9000)
    status, printed = separate(redirection, path)
    assert (status, b"bug" in printed) == (0, False)
    assert len(list(path.parent.glob("song_*.flac"))) == 2


def test_a_full_disk_behind_standard_output_is_one_sentence(song: WriteSong) -> None:
    paths = [song(name, samples=500) for name in ("a.wav", "b.wav")]
    status, printed = separate(">/dev/full", *paths)
    assert (status, b"Traceback" in printed, b"bug" in printed) == (2, False, False)
    assert b"bsmamba2: the results could not be printed (No space left on device)" in printed
    assert len(list(paths[0].parent.glob("*_*.wav"))) == 4


def test_a_pipe_that_is_closed_early_stops_nothing(song: WriteSong) -> None:
    paths = [song(name, samples=500) for name in ("a.wav", "b.wav")]
    _, printed = separate("| true", *paths)
    assert b"Traceback" not in printed
    assert len(list(paths[0].parent.glob("*_*.wav"))) == 4


NAMES = b"caf\xe9", "ünï".encode(), b"\xff\xfe"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_are_printed_in_the_bytes_that_they_have(song: WriteSong, encoding: str) -> None:
    songs = [song(f"{number}.wav", samples=500) for number in range(len(NAMES))]
    folder = os.fsencode(songs[0].parent)
    paths = [
        path.rename(os.fsdecode(folder + b"/" + name + b".wav"))
        for path, name in zip(songs, NAMES, strict=True)
    ]
    missing = songs[0].with_name("none.wav")
    status, printed = separate("", *paths, missing, encoding=encoding)
    assert (status, b"Traceback" in printed) == (2, False)
    for name in NAMES:
        shown = "ünï".encode(encoding) if name[0] == 0xC3 and encoding != "ascii" else name
        assert b"/" + shown + b"_vocals.wav\n" in printed


def test_what_no_encoding_has_is_printed_as_an_escape() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", errors=ERRORS)
    stream.write("\udfff")
    stream.flush()
    assert stream.buffer.getvalue() == b"\\udfff"


def test_the_first_failure_is_kept_and_the_rest_is_dropped() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    stream = LenientStream(Full())
    assert stream.write("x") == 1
    stream.flush()
    assert stream.failure is not None
    assert stream.failure.errno == 28
