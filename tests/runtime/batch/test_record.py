"""Records: stems are recognised by song, model and options, not by their names alone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from bsmamba2 import AudioError
from bsmamba2.batch.record import MAX_BYTES, Record
from bsmamba2.models.check import make_check
from support.engines import Stubs
from support.fixtures import WriteSong


@pytest.fixture
def record(stub: Stubs, song: WriteSong) -> Record:
    """The record of a song and its two stems, which exist."""
    path = song(samples=500)
    record = Record(path, path.parent, stub.half().manifest, {"overlap": 0.25})
    outputs = {stem: path.with_name(f"song_{stem}.wav") for stem in ("vocals", "instrumental")}
    for stem, output in outputs.items():
        output.write_text(stem)
    record.write({stem: (output, len(stem)) for stem, output in outputs.items()})
    return record


def changed(record: Record, **changes: object) -> Record:
    return Record(**{**vars(record), **changes})


def test_a_record_is_a_hidden_file_that_lists_the_stems(record: Record) -> None:
    assert record.path.name == ".song.wav.bsmamba2.json"
    stored = record.read()
    assert stored is not None
    assert stored.is_complete
    assert stored.outputs == {
        stem: record.directory / f"song_{stem}.wav" for stem in ("vocals", "instrumental")
    }


def test_a_missing_stem_makes_the_record_incomplete(record: Record) -> None:
    (record.directory / "song_vocals.wav").unlink()
    stored = record.read()
    assert stored is not None
    assert not stored.is_complete


def test_a_stem_of_another_size_is_not_from_this_run(record: Record) -> None:
    (record.directory / "song_vocals.wav").write_text("mine")
    assert record.read() is None


def test_another_model_or_other_options_are_not_recognised(record: Record, stub: Stubs) -> None:
    assert changed(record, model=stub.half(name="another").manifest).read() is None
    assert changed(record, options={"overlap": 0.5}).read() is None


def test_a_check_that_was_computed_later_does_not_change_a_checkpoint(
    record: Record, stub: Stubs
) -> None:
    plain = stub.half(checkpoint_sha256="a" * 64).manifest
    checked = plain.replace(check=make_check(stub.half()))
    outputs = {"vocals": (record.directory / "song_vocals.wav", 6)}
    changed(record, model=plain).write(outputs)
    assert changed(record, model=checked).read() is not None


def test_a_song_with_another_content_is_not_recognised(record: Record) -> None:
    content = bytearray(record.song.read_bytes())
    content[-1] ^= 1
    record.song.write_bytes(content)
    assert record.read() is None
    record.song.write_bytes(content + b"\0")
    assert record.read() is None
    record.song.unlink()
    assert record.read() is None


def test_a_song_with_another_time_but_the_same_content_is_recognised(record: Record) -> None:
    os.utime(record.song, (1, 1))
    assert record.read() is not None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"bsmamba2": 1}', b"[" * 9999, b" " * (MAX_BYTES + 1)]
)
def test_a_damaged_record_is_ignored(record: Record, content: bytes) -> None:
    record.path.write_bytes(content)
    assert record.read() is None


def test_a_record_cannot_point_outside_its_folder(record: Record) -> None:
    stored = json.loads(record.path.read_text())
    for name in ("../song_vocals.wav", "/etc/passwd"):
        stored["outputs"]["vocals"]["file"] = name
        record.path.write_text(json.dumps(stored))
        assert record.read() is None


def test_a_folder_that_cannot_be_written_is_an_error_with_a_fix(
    record: Record, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AudioError, match=r"cannot be written .*: choose another directory"):
        changed(record, directory=tmp_path / "file").write({})


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these")
def test_a_link_or_a_pipe_is_no_record(record: Record) -> None:
    content = record.path.read_text()
    other = record.path.with_name("elsewhere.json")
    other.write_text(content)
    for place in (
        lambda path: path.symlink_to(other),
        lambda path: path.symlink_to("/dev/zero"),
        os.mkfifo,
    ):
        record.path.unlink()
        place(record.path)
        assert record.read() is None


@pytest.mark.parametrize("file", ["other.wav", "song_vocals.tar.wav", "x\0.wav", "", "song_vocals"])
def test_a_forged_record_cannot_name_files_that_this_song_does_not_have(
    record: Record, file: str
) -> None:
    options = {"files": {"vocals": "song_vocals", "instrumental": "song_instrumental"}}
    forged = changed(record, options=options)
    forged.write({"vocals": (record.directory / "song_vocals.wav", 6)})
    assert forged.read() is not None
    stored = json.loads(forged.path.read_text())
    stored["outputs"]["vocals"]["file"] = file
    forged.path.write_text(json.dumps(stored))
    assert forged.read() is None


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_link_is_no_stem_of_an_earlier_run(record: Record) -> None:
    path = record.directory / "song_vocals.wav"
    path.unlink()
    path.symlink_to("vocals")  # a link to six letters has six bytes
    assert record.read() is None
