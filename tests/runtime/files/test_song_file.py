"""Songs are read to their last sample, and files that are not songs are refused in one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from bsmamba2 import AudioError, Separator
from bsmamba2.files.song_file import BLOCK, SongFile
from support.engines import Stubs
from support.files import floats, names
from support.fixtures import WriteSong


@pytest.mark.parametrize("samples", [1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_blocks_are_the_samples_in_order(song: WriteSong, samples: int) -> None:
    path = song(subtype="PCM_16", samples=samples)
    with SongFile(path) as file:
        blocks = list(file.blocks())
    assert max(block.shape[1] for block in blocks) <= BLOCK
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1).T, floats(path))


def test_a_song_states_its_rate_channels_length_and_encoding(song: WriteSong) -> None:
    with SongFile(song("song.flac", "PCM_24", channels=3, rate=48000, samples=9)) as file:
        assert (file.sample_rate, file.channels, file.samples) == (48000, 3, 9)
        assert (file.encoding.format, file.encoding.subtype) == ("FLAC", "PCM_24")


@pytest.mark.parametrize("format", ["RF64", "W64"])
def test_a_song_of_more_than_four_gigabytes_can_be_opened(tmp_path: Path, format: str) -> None:
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 44100, 2, "DOUBLE", format=format) as file:
        file.write(np.zeros((9, 2)))
    frames = 3 * 10**8
    small = path.read_bytes()
    path.write_bytes(with_length(small, format, frames * 16))
    os.truncate(path, len(small) + (frames - 9) * 16)  # a sparse file takes no space
    with SongFile(path) as song:
        assert (song.samples, path.stat().st_size > 1 << 32) == (frames, True)


def with_length(file: bytes, format: str, size: int) -> bytes:
    """A file of nine frames whose header states ``size`` bytes of samples."""

    def packed(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(8, "little") for number in numbers)

    more = size - 9 * 16
    if format == "W64":
        whole = file.replace(packed(len(file)), packed(len(file) + more), 1)
        return whole.replace(packed(9 * 16 + 24), packed(size + 24), 1)
    start = file.index(b"ds64") + 8
    return file[:start] + packed(len(file) - 8 + more, size, size // 16) + file[start + 24 :]


def write_nan(path: Path) -> None:
    frames = np.zeros((2000, 2))
    frames[1000, 1] = np.nan
    soundfile.write(path, frames, 8000, "FLOAT")


def write_truncated_flac(path: Path) -> None:
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 200_000), 8000, format="FLAC")
    path.write_bytes(path.read_bytes()[:200_000])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "is an empty file"),
        (lambda path: path.write_text("no audio"), "is not audio that libsndfile reads"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, r"cannot be opened \(No such file"),
        (lambda path: os.mkfifo(path), "is not a regular file"),
        (lambda path: soundfile.write(path, np.zeros((0, 2)), 8000), "has no samples"),
        (lambda path: soundfile.write(path, np.zeros((9, 70)), 8000), "1 to 64 channels; got 70"),
        (lambda path: soundfile.write(path, np.zeros(9), 4000), "8000 to 384000 Hz; got 4000"),
        (write_nan, r"song.wav: audio must be finite; channel 2 is nan at 0\.125000 s"),
        (write_truncated_flac, r"cannot be read to the end"),
    ],
)
def test_a_file_that_is_not_a_song_is_refused_in_one_sentence_without_output(
    stub: Stubs, tmp_path: Path, write: Callable[[Path], Any], message: str
) -> None:
    path = tmp_path / "song.wav"
    write(path)
    before = names(tmp_path)
    with pytest.raises(AudioError, match=message) as error:
        Separator(stub.half()).separate_file(path)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == before


def test_a_headerless_file_is_refused(stub: Stubs, tmp_path: Path) -> None:
    (tmp_path / "song.raw").write_bytes(b"1234")
    with pytest.raises(AudioError, match="is not audio that libsndfile reads"):
        Separator(stub.half()).separate_file(tmp_path / "song.raw")
