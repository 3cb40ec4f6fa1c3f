"""Songs in storage to stems in storage, without Ray."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bsmamba2 import AudioError, Separator
from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.recipe import FOLDER
from bsmamba2_cluster.record import WORK
from bsmamba2_cluster.separate_songs import SeparateSongs
from bsmamba2_cluster.storage import Storage, StorageError

Rows = list[dict[str, Any]]
SONGS = ("one.flac", "cd/two.wav", "cd/three.flac")
Make = Callable[..., SeparateSongs]


in_both = pytest.mark.parametrize("address", ["folder", "bucket"], indirect=True)


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder, or a bucket's prefix where a test asks for both."""
    if getattr(request, "param", "folder") == "folder":
        return str(tmp_path / "storage")
    request.getfixturevalue("server")
    return f"s3://music/{tmp_path.name}-{os.getpid()}"


@pytest.fixture
def make(
    address: str, album: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Make:
    """Creates a worker whose songs are in the same kind of storage as its stems."""
    monkeypatch.setenv("BSMAMBA2_SPOOL", str(tmp_path / "spool"))
    source = open_storage(f"{address}/albums")
    for path in album.rglob("*.*"):
        if path.is_file():
            source.upload(path, path.relative_to(album).as_posix())

    def make(**changes: Any) -> SeparateSongs:
        settings: dict[str, Any] = {"run": "a run"} | changes
        return SeparateSongs(f"{address}/albums", f"{address}/stems", model, **settings)

    return make


def rows(worker: SeparateSongs, *songs: str, **columns: list[Any]) -> Rows:
    source = worker._source.address
    found = worker({"song": [f"{source}/{song}" for song in songs], **columns})
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]


def contents(storage: Storage) -> dict[str, bytes]:
    keys = [entry.key for page in storage.pages() for entry in page]
    return {k: storage.read(k, 1 << 30) or b"" for k in keys if not k.startswith(FOLDER)}


def all_keys(storage: Storage) -> set[str]:
    return {entry.key for page in storage.pages() for entry in page}


@in_both
def test_the_stems_are_those_of_separate(
    make: Make, album: Path, model: str, tmp_path: Path
) -> None:
    worker = make()
    assert [row["status"] for row in rows(worker, *SONGS)] == ["done"] * 3
    separator, expected = Separator(model), {}
    for song in SONGS:
        folder = tmp_path / "reference" / Path(song).parent
        for path in separator.separate_file(album / song, folder).values():
            key = path.relative_to(tmp_path / "reference").as_posix()
            expected[key] = path.read_bytes()
    assert contents(worker._destination) == expected
    assert [page for page in worker._destination.pages(WORK)] == []  # noqa: C416


def test_a_row_says_where_the_stems_are_and_how_long_it_took(make: Make, address: str) -> None:
    (row,) = rows(make(), "cd/two.wav")
    stem = f"{address}/stems/cd/two_vocals.wav"
    assert json.loads(row["outputs"])["vocals"] == stem
    assert row["audio_s"] == pytest.approx(18000 / 44100, abs=1e-3)
    assert row["seconds"] > 0
    assert row["device"] == "cpu"


def test_a_song_of_an_earlier_run_is_already_done(make: Make) -> None:
    rows(make(), "one.flac")
    assert rows(make(run="another"), "one.flac")[0]["status"] == "already"
    assert rows(make(), "one.flac")[0]["status"] == "done"  # a task of this run that ran again


@in_both
def test_whatever_a_song_raises_is_a_row_and_the_rest_goes_on(make: Make, address: str) -> None:
    source = open_storage(f"{address}/albums")
    source.replace("noise.flac", b"no audio")
    source.replace("empty.wav", b"")
    worker = make()
    found = rows(worker, "noise.flac", "empty.wav", "absent.flac", "../one.flac", "one.flac")
    assert [row["status"] for row in found] == ["failed"] * 4 + ["done"]
    for row, name in zip(found, ("noise", "empty", "absent", "one"), strict=False):
        assert f"{address}/albums/" in row["error"]
        assert name in row["error"]
        assert "spool" not in row["error"]
    assert len(contents(worker._destination)) == 2


HOSTILE = {
    "../outside.flac": "a part of it is empty, . or ..",
    "a/../../outside.flac": "a part of it is empty, . or ..",
    "a//b.flac": "a part of it is empty, . or ..",
    "new\nline.flac": "control character",
    "\x1b]0;title\x07.flac": "control character",
    "half \ud800.flac": "not UTF-8",
    "x/" * 600 + "long.flac": "longer than 1,024 bytes",
    "x" * 300 + ".flac": "255 bytes|File name too long",
    ".bsmamba2/records/ab/one.flac": "kept for records",
}


@in_both
def test_a_hostile_key_is_a_failure_in_one_line_and_writes_nothing(make: Make, album: Path) -> None:
    worker = make()
    before = all_keys(worker._destination)
    for key, message in HOSTILE.items():
        with suppress(StorageError):
            worker._source.replace(key, (album / "one.flac").read_bytes())
        listed: dict[str, list[Any]] = {}
        if key.startswith("xxx"):
            listed = {"bytes": [1], "version": ["1"]}
        (row,) = rows(worker, key, **listed)
        assert row["status"] == "failed", key
        assert re.search(message, row["error"]), row
        assert row["error"].isprintable()
    assert all_keys(worker._destination) == before


def test_a_bug_is_a_row_that_says_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = make()

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(worker._separator, "separate_planned", broken)
    (row,) = rows(worker, "one.flac")
    assert "this is a bug" in row["error"]


@in_both
def test_a_song_that_was_replaced_since_it_was_listed_is_a_failure(
    make: Make, address: str
) -> None:
    source = open_storage(f"{address}/albums")
    listed = source.head("one.flac")
    assert listed is not None
    source.replace("one.flac", b"something else")
    (row,) = rows(make(), "one.flac", bytes=[listed.size], version=[listed.version])
    assert row["status"] == "failed"
    assert "run again" in row["error"]


def test_a_song_that_needs_more_than_the_spool_is_a_failure_before_it_is_separated(
    make: Make,
) -> None:
    (row,) = rows(make(spool_gib=1e-4), "cd/three.flac")
    assert "spool_gib" in row["error"]


@in_both
def test_a_claimed_song_is_busy_until_its_holder_is_known_to_be_dead(make: Make) -> None:
    worker = make(run="new")
    dead = make(run="old")
    song = dead._source.head("one.flac")
    assert song is not None
    from bsmamba2_cluster.song_work import SongWork

    claim = SongWork(dead._source, dead._destination, song, dead._recipe).claim("old", "w", 1e6)
    (row,) = rows(worker, "one.flac")
    assert (row["status"], row["error"]) == ("busy", "")
    assert rows(worker, "one.flac", holder=["another"])[0]["status"] == "busy"
    assert rows(worker, "one.flac", holder=[row["holder"]])[0]["status"] == "done"
    claim.release()


def test_a_destination_of_another_model_or_other_options_is_refused(make: Make) -> None:
    rows(make(), "one.flac")
    with pytest.raises(StorageError, match=r"other options \(format\).*another destination"):
        make(format="wav")


def test_a_template_with_tags_is_refused(make: Make) -> None:
    with pytest.raises(AudioError, match="no tags"):
        make(template="{artist}/{name}_{stem}.{ext}")


def test_a_model_in_storage_is_downloaded(make: Make, address: str, model: str) -> None:
    open_storage(address).upload(Path(model), "models/voice.safetensors")
    where = address if "://" in address else f"file://{address}"
    worker = SeparateSongs(
        f"{address}/albums", f"{address}/stems", f"{where}/models/voice.safetensors"
    )
    assert rows(worker, "one.flac")[0]["status"] == "done"


@in_both
def test_a_song_that_is_replaced_gets_new_stems_and_one_record(make: Make, address: str) -> None:
    worker = make()
    rows(worker, "one.flac")
    before = contents(worker._destination)
    source = open_storage(f"{address}/albums")
    source.replace("one.flac", source.read("cd/three.flac", 1 << 30) or b"")
    assert rows(worker, "one.flac")[0]["status"] == "done"
    after = contents(worker._destination)
    assert before.keys() == after.keys()
    assert before != after
    records = [e for page in worker._destination.pages(f"{FOLDER}/records") for e in page]
    assert len(records) == 1
