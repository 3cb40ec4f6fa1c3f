"""Songs are read to their last sample, and files that are not songs are refused in one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from bsmamba2 import AudioError, MissingExtra, Separator
from bsmamba2.files.excerpt import Excerpt
from bsmamba2.files.song_file import BLOCK, SongFile
from bsmamba2.installation import install_command
from support.engines import Stubs
from support.files import floats, names, read_song
from support.fixtures import Noise, WriteSong


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
        (lambda path: path.write_text("no audio"), "is not audio that libsndfile or FFmpeg reads"),
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
    with pytest.raises(AudioError, match="is not audio that libsndfile or FFmpeg reads"):
        Separator(stub.half()).separate_file(tmp_path / "song.raw")


@pytest.mark.parametrize("name", ["song.wav", "song.aiff", "song.au", "song.w64", "song.rf64"])
@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_song_that_was_not_copied_completely_is_refused(
    stub: Stubs, song: WriteSong, name: str, keep: float
) -> None:
    path = song(name, "PCM_16", samples=20_000)
    os.truncate(path, int(keep * path.stat().st_size))
    with pytest.raises(
        AudioError, match=f"{name} is incomplete or damaged .*should end at byte .*: get a new"
    ):
        Separator(stub.half()).separate_file(path)
    assert names(path.parent) == [name]


@pytest.mark.parametrize("name", ["song.ogg", "song.opus", "song.mp3", "song.flac"])
@pytest.mark.parametrize("keep", [0.3, 0.8])
def test_a_compressed_song_that_was_not_copied_completely_is_refused(
    stub: Stubs, tmp_path: Path, noise: Noise, name: str, keep: float
) -> None:
    path = tmp_path / name
    container = "OGG" if name.endswith("opus") else None
    soundfile.write(path, 0.1 * noise(2, 96_000).T, 48000, format=container)
    os.truncate(path, int(keep * path.stat().st_size))
    with pytest.raises(AudioError, match=r"is incomplete|cannot be read to the end"):
        Separator(stub.half()).separate_file(path)


def test_a_damaged_page_inside_an_ogg_file_is_not_taken_for_silence(
    stub: Stubs, song: WriteSong
) -> None:
    path = song("song.ogg", samples=200_000)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"damaged \(its page at byte \d+ is damaged\)"):
        Separator(stub.half()).separate_file(path)


def test_an_ogg_file_without_its_last_page_is_separated_with_a_warning(
    song: WriteSong, caplog: pytest.LogCaptureFixture
) -> None:
    path = song("song.ogg", samples=200_000)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"OggS")])
    assert 0 < read_song(path).shape[1] < 200_000
    assert "song.ogg may be incomplete (its last page has no end mark)" in caplog.text


@pytest.mark.parametrize("name", ["song.wav", "song.flac", "song.mp3", "song.ogg", "song.aiff"])
def test_bytes_after_the_last_sample_do_not_matter(song: WriteSong, name: str) -> None:
    path = song(name, samples=100_000)
    whole = read_song(path)
    with path.open("ab") as file:
        file.write(np.random.default_rng(0).bytes(5000))
    np.testing.assert_array_equal(read_song(path), whole)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF - 36])
def test_a_wav_whose_size_was_never_written_is_read_to_its_end(song: WriteSong, size: int) -> None:
    path = song("song.wav", "PCM_16", samples=5000)
    whole = read_song(path)
    content = bytearray(path.read_bytes())
    for at in (4, content.index(b"data") + 4):
        content[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)
    np.testing.assert_array_equal(read_song(path), whole)


def test_a_name_that_is_not_utf_8_is_separated(stub: Stubs, song: WriteSong) -> None:
    path = song(subtype="PCM_16", samples=500)
    path = path.rename(os.fsdecode(os.fsencode(path.parent) + b"/caf\xe9.wav"))
    outputs = Separator(stub.half()).separate_file(path)
    assert [os.fsencode(out.name) for out in outputs.values()] == [
        b"caf\xe9_vocals.wav", b"caf\xe9_instrumental.wav",
    ]  # fmt: skip


def test_a_path_with_nul_is_refused_in_one_sentence(stub: Stubs) -> None:
    with pytest.raises(AudioError, match="cannot be opened .a path cannot contain NUL"):
        Separator(stub.half()).separate_file("a\0b.wav")


def test_without_pyav_a_file_that_libsndfile_refuses_brings_the_line_that_installs_it(
    stub: Stubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "song.wav").write_text("no audio")
    with pytest.raises(
        MissingExtra, match=r"is not audio that libsndfile reads, but FFmpeg may read it: pip"
    ) as error:
        Separator(stub.half()).separate_file(tmp_path / "song.wav")
    assert install_command("av") in str(error.value)


def tone(rate: int, seconds: float) -> Any:
    """A rising tone, whose samples differ everywhere, (n, 2)."""
    t = np.arange(round(rate * seconds)) / rate
    return np.stack([0.4 * np.sin(300 * t * (1 + t)), 0.4 * np.cos(200 * t * (1 + t))], axis=1)


def test_the_blocks_of_an_mp3_are_those_of_one_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(44100, 4), 44100)
    np.testing.assert_array_equal(read_song(path), floats(path).T)


@pytest.mark.parametrize(
    ("name", "format", "subtype", "rate"),
    [
        ("a.wav", "WAV", "PCM_16", 44100),
        ("a.wav", "WAV", "IMA_ADPCM", 44100),
        ("a.flac", "FLAC", "PCM_24", 44100),
        ("a.caf", "CAF", "ALAC_16", 44100),
        ("a.mp3", "MP3", "MPEG_LAYER_III", 44100),
        ("a.ogg", "OGG", "VORBIS", 44100),
        ("a.opus", "OGG", "OPUS", 48000),
    ],
)
@pytest.mark.parametrize("start_s", [0.0001, 1.0, 2.7183])
def test_an_excerpt_is_that_part_of_the_decoded_song(
    tmp_path: Path, name: str, format: str, subtype: str, rate: int, start_s: float
) -> None:
    path = tmp_path / name
    soundfile.write(path, tone(rate, 4), rate, subtype, format=format)
    first = round(start_s * rate)
    expected = read_song(path)[:, first : round((start_s + 0.7) * rate)]
    with SongFile(path, Excerpt(start_s, 0.7)) as song:
        assert (song.samples, song.first) == (expected.shape[1], first)
        found = np.concatenate(list(song.blocks()), axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_song_that_cannot_seek_is_decoded_up_to_its_excerpt(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(8000, 4)[:, 0], 8000, "GSM610")
    with SongFile(path, Excerpt(2.5)) as song:
        assert not song._file.can_seek()
        found = np.concatenate(list(song.blocks()), axis=1)
    np.testing.assert_array_equal(found, read_song(path)[:, 20000:])


def test_what_precedes_an_excerpt_is_not_decoded(
    song: WriteSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, counts, read = song(samples=100_000), [], soundfile.SoundFile.read

    def counting(file: Any, frames: int, **options: Any) -> Any:
        counts.append(frames)
        return read(file, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    with SongFile(path, Excerpt(2, 0.1)) as file:
        list(file.blocks())
    assert counts == [4410]


def test_an_excerpt_ends_with_its_song(song: WriteSong) -> None:
    with SongFile(song(), Excerpt(0.9, 60)) as file:
        assert file.samples == 4410
        assert sum(block.shape[1] for block in file.blocks()) == 4410


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_an_excerpt_that_starts_after_the_end_is_refused(song: WriteSong, name: str) -> None:
    path = song(name)
    with (
        pytest.raises(AudioError, match=r"before the end of the song, 1.* s; got 9"),
        SongFile(path, Excerpt(9)) as file,
    ):
        list(file.blocks())


def test_damage_after_an_excerpt_does_not_matter(song: WriteSong) -> None:
    path = song("a.flac", samples=400_000)
    content = bytearray(path.read_bytes())
    content[-len(content) // 4 :] = bytes(len(content) // 4 + 1)
    path.write_bytes(content)
    with SongFile(path, Excerpt(1, 0.5)) as file:
        assert sum(block.shape[1] for block in file.blocks()) == 22050
