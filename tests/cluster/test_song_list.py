"""Listing, order and blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.recipe import Recipe
from bsmamba2_cluster.record import record_key, song_id, version_id
from bsmamba2_cluster.song_list import SongList, block_sizes, is_song, list_songs
from bsmamba2_cluster.storage import Storage, StorageError

RECIPE = Recipe("", "model", "0" * 64, {"template": "{name}_{stem}.{ext}"})


def listed(source: Storage, destination: Storage) -> tuple[SongList, list[str]]:
    refused: list[str] = []
    songs = list_songs(source, destination, RECIPE, lambda song, error: refused.append(song))
    return songs, refused


def library(tmp_path: Path, *keys: str) -> tuple[Storage, Storage]:
    source = open_storage(str(tmp_path / "songs"))
    for number, key in enumerate(keys):
        source.replace(key, bytes(number))
    return source, open_storage(str(tmp_path / "stems"))


def test_songs_are_found_by_suffix_and_hidden_ones_left_out(tmp_path: Path) -> None:
    keys = ("a.flac", "b/c.MP3", "b/cover.jpg", ".b/d.flac", "b/.e.flac", "README")
    songs, refused = listed(*library(tmp_path, *keys))
    assert sorted(songs.songs["key"].to_pylist()) == ["a.flac", "b/c.MP3"]
    assert refused == []
    assert [key for key in keys if is_song(key)] == ["a.flac", "b/c.MP3"]


def test_the_largest_song_is_first(tmp_path: Path) -> None:
    songs, _ = listed(*library(tmp_path, "a.flac", "b.flac", "c.flac"))
    assert songs.songs["key"].to_pylist() == ["c.flac", "b.flac", "a.flac"]
    assert songs.bytes == 3


def test_songs_with_a_record_of_their_version_are_done(tmp_path: Path) -> None:
    source, destination = library(tmp_path, "a.flac", "b.flac")
    for key, size in (("a.flac", None), ("b.flac", 99)):
        entry = source.head(key)
        assert entry is not None
        version = version_id(entry.size if size is None else size, entry.version, RECIPE)
        destination.replace(record_key(song_id(key), version), b"{}")
    songs, _ = listed(source, destination)
    assert (songs.done, songs.songs["key"].to_pylist()) == (1, ["b.flac"])


def test_songs_whose_stems_would_have_the_same_names_are_refused_but_the_first(
    tmp_path: Path,
) -> None:
    songs, refused = listed(*library(tmp_path, "x/a.flac", "x/a.mp3", "y/a.mp3"))
    assert sorted(songs.songs["key"].to_pylist()) == ["x/a.flac", "y/a.mp3"]
    assert refused == [str(tmp_path / "songs/x/a.mp3")]
    assert songs.refused == 1


def test_a_destination_inside_the_source_is_left_out(tmp_path: Path) -> None:
    source, _ = library(tmp_path, "a.flac", "stems/a_vocals.flac", "stems2/b.flac")
    songs, _ = listed(source, open_storage(f"{source.address}/stems"))
    assert sorted(songs.songs["key"].to_pylist()) == ["a.flac", "stems2/b.flac"]


@pytest.mark.parametrize("above", ["", "/.."])
def test_a_destination_that_contains_the_songs_is_refused(tmp_path: Path, above: str) -> None:
    source, _ = library(tmp_path, "a.flac")
    with pytest.raises(StorageError, match="must not be the source"):
        listed(source, open_storage(f"{source.address}{above}"))


def test_a_limit_takes_songs_of_all_sizes(tmp_path: Path) -> None:
    songs, _ = listed(*library(tmp_path, *(f"{n:02}.flac" for n in range(20))))
    assert songs.limited(4).songs["bytes"].to_pylist() == [17, 12, 7, 2]
    assert songs.limited(None) is songs
    assert len(songs.limited(99).songs) == 20


def test_an_empty_library_is_an_empty_list(tmp_path: Path) -> None:
    songs, _ = listed(*library(tmp_path))
    assert (len(songs.songs), songs.bytes, songs.done) == (0, 0, 0)


@given(st.lists(st.integers(0, 1 << 34), max_size=300), st.integers(1, 50))
def test_a_block_is_one_song_or_a_small_part_of_what_is_left(
    sizes: list[int], workers: int
) -> None:
    at = 0
    for count in block_sizes(np.array(sizes, np.int64), workers):
        left = sum(max(size, 1) for size in sizes[at:])
        assert count == 1 or 4 * workers * sum(sizes[at : at + count]) <= left
        assert 1 <= count <= 32
        at += count
    assert at == len(sizes)


def test_many_short_songs_are_few_blocks() -> None:
    assert len(list(block_sizes(np.full(100_000, 1000), 10))) < 3600
