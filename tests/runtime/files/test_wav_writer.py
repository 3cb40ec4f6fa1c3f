"""A WAV on standard output: what other programs read from it, and how it ends."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bsmamba2 import AudioError
from bsmamba2.audio.array import Audio, Exact
from bsmamba2.files.encoding import Clip, Encoding
from bsmamba2.files.wav_reader import WavReader
from bsmamba2.files.wav_writer import SUBTYPES, ReaderGone, WavWriter, require_subtype
from support.fixtures import Noise


class Pipe(io.BytesIO):
    """A stream in which one cannot go back."""

    def seekable(self) -> bool:
        return False


def write(
    stream: io.IOBase,
    samples: Audio | Exact,
    subtype: str = "FLOAT",
    clip: Clip = "float",
    mask: int | None = None,
) -> None:
    encoding = Encoding("WAV", subtype, ".wav")
    with WavWriter(
        stream,  # type: ignore[arg-type]
        1,
        encoding,
        44100,
        len(samples),
        clip=clip,
        speaker_mask=mask,
    ) as writer:
        for part in np.array_split(samples.astype(np.float64), 3, axis=1):
            writer.write(np.stack([np.zeros_like(part), part]))
        writer.finish()


def on_grid(noise: Noise, channels: int, subtype: str) -> Exact:
    step = Encoding("WAV", subtype, ".wav").step
    samples = 0.9 * noise(channels, 99).astype(np.float64)
    return np.round(samples / step) * step if step else samples.astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize("stream", [Pipe, io.BytesIO])
def test_libsndfile_and_the_reader_read_what_was_written(
    noise: Noise, stream: type[io.BytesIO], subtype: str, channels: int
) -> None:
    samples, output = on_grid(noise, channels, subtype), stream()
    write(output, samples, subtype)
    found, rate = soundfile.read(io.BytesIO(output.getvalue()), always_2d=True)
    assert rate == 44100
    np.testing.assert_array_equal(found.T, samples)
    song = WavReader(io.BytesIO(output.getvalue()))
    np.testing.assert_array_equal(np.concatenate(list(song.blocks()), 1), samples)


def test_a_file_gets_its_length_and_a_pipe_states_none(noise: Noise) -> None:
    for stream, samples in ((io.BytesIO(), 99), (Pipe(), 0)):
        write(stream, noise(2, 99))
        assert WavReader(io.BytesIO(stream.getvalue())).samples == samples


def test_a_file_that_is_appended_to_is_not_changed_before_its_end(
    noise: Noise, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    with path.open("ab") as file:
        write(file, noise(2, 99))
    content = path.read_bytes()
    assert content[:10] == b"beforeRIFF"
    assert len(content) == 6 + 44 + 99 * 8


def test_the_speakers_are_stated(noise: Noise) -> None:
    output = Pipe()
    write(output, noise(2, 9), mask=0x30)
    assert WavReader(io.BytesIO(output.getvalue())).speaker_mask == 0x30


def test_full_scale_is_exceeded_in_float_clipped_or_refused(noise: Noise) -> None:
    loud, outputs = 2 * noise(2, 99), [Pipe(), Pipe()]
    write(outputs[0], loud)
    write(outputs[1], loud, "PCM_16", "clip")
    peaks = [np.abs(soundfile.read(io.BytesIO(out.getvalue()))[0]).max() for out in outputs]
    assert peaks[0] == np.abs(loud).max()
    assert peaks[1] == 1
    with pytest.raises(AudioError, match="use clip='clip' or subtype='float'"):
        write(Pipe(), loud, "PCM_16")


def test_a_reader_that_has_ended_stops_the_work(noise: Noise) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stream, pytest.raises(ReaderGone):
        write(stream, noise(2, 99))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_error(noise: Noise) -> None:
    with Path("/dev/full").open("wb", buffering=0) as stream, pytest.raises(AudioError) as error:
        write(stream, noise(2, 99))
    assert "standard output cannot be written (No space left" in str(error.value)


def test_a_sample_format_that_is_no_wav_of_samples_is_refused() -> None:
    with pytest.raises(AudioError, match="subtype for standard output must be one of pcm_u8"):
        require_subtype("vorbis")
