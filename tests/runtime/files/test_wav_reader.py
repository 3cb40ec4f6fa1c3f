"""A WAV on standard input: every sample format, unknown lengths, and what is refused."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from bsmamba2 import AudioError
from bsmamba2.audio.array import Audio, Exact
from bsmamba2.files.excerpt import WHOLE, Excerpt
from bsmamba2.files.wav_reader import WavReader
from support.fixtures import Noise

SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]


def wav(samples: Audio | Exact, subtype: str = "PCM_16", format: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples.T, 8000, subtype, format=format)
    return file.getvalue()


def with_size(content: bytes, size: int) -> bytes:
    at = content.index(b"data") + 4
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


def read(content: bytes, excerpt: Excerpt = WHOLE) -> Exact:
    with WavReader(io.BytesIO(content), excerpt) as song:
        return np.concatenate(list(song.blocks()), axis=1)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_samples_are_those_that_libsndfile_reads(
    noise: Noise, subtype: str, format: str, channels: int
) -> None:
    content = wav(noise(channels, 999), subtype, format)
    expected = soundfile.read(io.BytesIO(content), always_2d=True)[0]
    np.testing.assert_array_equal(read(content), expected.T)


def test_the_header_is_that_of_the_song(noise: Noise) -> None:
    song = WavReader(io.BytesIO(wav(noise(2, 999), "PCM_24")))
    assert (song.sample_rate, song.channels, song.samples) == (8000, 2, 999)
    assert (song.encoding.format, song.encoding.subtype) == ("WAV", "PCM_24")


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36])
def test_a_size_that_was_never_written_means_until_the_end(noise: Noise, size: int) -> None:
    content = wav(noise(2, 999))
    song = WavReader(io.BytesIO(with_size(content, size)))
    assert song.samples == 0
    np.testing.assert_array_equal(np.concatenate(list(song.blocks()), 1), read(content))


def test_what_follows_the_samples_is_not_read_as_samples(noise: Noise) -> None:
    content = wav(noise(2, 999))
    assert read(content + b"LIST\4\0\0\0INFO").shape == (2, 999)


def test_an_excerpt_is_its_part_of_the_song(noise: Noise) -> None:
    content = wav(noise(2, 8000))
    part = read(with_size(content, 0), Excerpt(0.25, 0.5))
    np.testing.assert_array_equal(part, read(content)[:, 2000:6000])
    with pytest.raises(AudioError, match="start_s must be before the end of the song, 1 s; got 2"):
        read(content, Excerpt(2))


@pytest.mark.parametrize(("size", "label"), [(16000, "_0.5s-end"), (0, "_0.5s-9.5s")])
def test_only_a_stated_length_shortens_the_label(noise: Noise, size: int, label: str) -> None:
    content = with_size(wav(noise(1, 8000)), size)
    with WavReader(io.BytesIO(content), Excerpt(0.5, 9)) as song:
        list(song.blocks())
        assert song.label == label


def test_a_padded_end_is_no_sample(noise: Noise) -> None:
    content = wav(noise(1, 3), "PCM_24")
    data = content[: content.index(b"data") + 8 + 9]
    assert read(with_size(data + b"\0", 0)).shape == (1, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty: pipe a WAV into it"),
        (b"fLaC" + bytes(99), "it must be a WAV; got FLAC: convert it on the way"),
        (b"hello, this is text", "it must be a WAV; got something else"),
        (b"RIFF\0\0\0\0WAVE", "it ended before its samples"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "does not state the sample format"),
        (b"RIFF\0\0\0\0WAVELIST\xff\xff\xff\x7f", "bytes before its samples"),
    ],
)
def test_another_stream_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        WavReader(io.BytesIO(content))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (20, 85, "must be PCM of 8, 16, 24 or 32 bits, or float of 32 or 64; got format 85"),
        (34, 12, "got format 1 with 12 bits"),
        (32, 3, "states 3 bytes for 2 samples of 16 bits: it is damaged"),
        (22, 0, "bytes for 0 samples"),
    ],
)
def test_a_format_that_cannot_be_read_is_refused(
    noise: Noise, field: int, value: int, message: str
) -> None:
    content = bytearray(wav(noise(2, 99)))
    content[field : field + 2] = struct.pack("<H", value)
    with pytest.raises(AudioError, match=message):
        WavReader(io.BytesIO(bytes(content)))


def test_a_stream_that_ends_early_is_an_error(noise: Noise) -> None:
    content = wav(noise(2, 8000))
    with pytest.raises(AudioError, match=r"it ended 0\.5 s before the end that its header states"):
        read(content[:-16000])
    with pytest.raises(AudioError, match="it ended within a sample"):
        read(with_size(content, 0)[:-1])


def test_a_stream_without_samples_is_an_error() -> None:
    with pytest.raises(AudioError, match="it has no samples"):
        read(wav(np.zeros((2, 0))))


def test_a_sample_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(AudioError, match="not finite|finite"):
        read(wav(np.full((2, 9), np.nan), "FLOAT"))


def test_a_terminal_is_refused() -> None:
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    with pytest.raises(AudioError, match="it is a terminal: pipe a WAV into it"):
        WavReader(Terminal())
