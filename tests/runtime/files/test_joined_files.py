"""Several files in one, as ``cat`` writes them: each is found, and decoded as if it were alone."""

from __future__ import annotations

import io
import os
import sys
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError, MissingExtra
from bsmamba2.files.joined_files import Window, flac_starts
from bsmamba2.files.structure import read_structure
from support.files import floats, read_song
from support.fixtures import WriteSong

KINDS = ["a.wav", "a.aiff", "a.caf", "a.au", "a.w64", "a.rf64", "a.flac"]


def join(song: WriteSong, name: str, lengths: list[int]) -> tuple[Path, list[int]]:
    """Joins songs of these lengths; returns the file, and where each one starts."""
    parts = []
    for samples in lengths:
        parts.append(song(name, "PCM_16", samples=samples).read_bytes())
    path = song(name, "PCM_16")
    path.write_bytes(b"".join(parts))
    return path, [0, *accumulate(len(part) for part in parts)][:-1]


@pytest.mark.parametrize("name", KINDS)
def test_the_samples_of_all_files_are_read(song: WriteSong, name: str) -> None:
    pytest.importorskip("av")
    path, starts = join(song, name, [9000, 70_000, 5000])
    whole = read_song(path)
    alone = [path.read_bytes()[at:end] for at, end in zip(starts, [*starts[1:], None], strict=True)]
    for content in alone:
        path.write_bytes(content)
        samples = floats(path).T
        assert np.array_equal(whole[:, : samples.shape[1]], samples)
        whole = whole[:, samples.shape[1] :]
    assert whole.shape[1] == 0


@pytest.mark.parametrize("name", KINDS)
def test_where_each_file_starts_is_found(song: WriteSong, name: str) -> None:
    path, starts = join(song, name, [3000, 1000, 2000])
    found = flac_starts(path) if name == "a.flac" else read_structure(path).starts
    assert list(found) == starts


@pytest.mark.parametrize("name", KINDS)
def test_without_pyav_joined_files_are_an_error(
    song: WriteSong, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path, _ = join(song, name, [3000, 1000])
    with pytest.raises(MissingExtra, match="2 files are joined in it"):
        read_song(path)


@pytest.mark.parametrize("name", KINDS)
def test_a_last_file_that_is_cut_off_is_an_error(song: WriteSong, name: str) -> None:
    pytest.importorskip("av")
    path, _ = join(song, name, [3000, 9000])
    os.truncate(path, path.stat().st_size - 5000)
    with pytest.raises(AudioError, match="incomplete|damaged"):
        read_song(path)


@given(st.binary(max_size=50), st.lists(st.integers(0, 60), max_size=8))
def test_a_window_reads_like_a_file_of_its_own(content: bytes, moves: list[int]) -> None:
    window, own = Window(io.BytesIO(b"before" + content + b"after"), 6, 6 + len(content)), content
    file = io.BytesIO(own)
    for move in moves:
        assert window.seek(move) == file.seek(move)
        assert window.read(7) == file.read(7)
    assert window.seek(0, os.SEEK_END) == len(content)
