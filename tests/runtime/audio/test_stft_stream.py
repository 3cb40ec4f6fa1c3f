"""The streamed transform equals the transform of the whole signal, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.audio.array import Audio
from bsmamba2.audio.stft import istft, stft
from bsmamba2.audio.stft_stream import IstftStream, StftStream
from support.fixtures import Noise

SIZES = st.sampled_from([(16, 4), (16, 3), (64, 13), (2048, 441)])


def frames(audio: Audio, n_fft: int, hop: int, cuts: Sequence[int] = ()) -> Audio:
    stream = StftStream(len(audio), n_fft, hop)
    parts = [stream.push(part) for part in np.split(audio, cuts, axis=1)]
    return np.concatenate([*parts, stream.flush()], axis=1)


def samples(spectrum: Audio, n_fft: int, hop: int, length: int, cuts: Sequence[int] = ()) -> Audio:
    stream = IstftStream(len(spectrum), n_fft, hop)
    parts = [stream.push(part) for part in np.split(spectrum, cuts, axis=1)]
    pushed = np.concatenate(parts, axis=1)
    rest = stream.flush(max(0, length - pushed.shape[1]))
    return np.concatenate([pushed, rest], axis=1)[:, :length]


@given(SIZES, st.integers(1, 6000), st.lists(st.integers(0, 6000), max_size=9))
def test_frames_do_not_depend_on_how_input_is_split(
    noise: Noise, size: tuple[int, int], length: int, cuts: list[int]
) -> None:
    audio = noise(2, length)
    np.testing.assert_array_equal(frames(audio, *size, sorted(cuts)), stft(audio, *size))


@given(SIZES, st.integers(1, 6000), st.lists(st.integers(0, 99), max_size=9))
def test_samples_do_not_depend_on_how_frames_are_split(
    noise: Noise, size: tuple[int, int], length: int, cuts: list[int]
) -> None:
    spectrum = stft(noise(2, length), *size)
    spectrum *= noise(1, spectrum.shape[1]).reshape(1, -1, 1, 1)
    np.testing.assert_array_equal(
        samples(spectrum, *size, length, sorted(cuts)), istft(spectrum, *size, length)
    )


def test_pushes_of_one_sample_give_the_same_frames(noise: Noise) -> None:
    audio = noise(1, 100)
    np.testing.assert_array_equal(frames(audio, 16, 3, range(100)), stft(audio, 16, 3))


def test_an_empty_signal_has_no_frames() -> None:
    assert frames(np.zeros((2, 0), np.float32), 16, 4).shape == (2, 0, 9, 2)


@pytest.mark.parametrize("n_fft", [16, 2048])
def test_a_frame_is_output_with_the_last_sample_it_covers(noise: Noise, n_fft: int) -> None:
    stream, half = StftStream(1, n_fft, n_fft // 4), n_fft // 2
    counts = [stream.push(noise(1, n)).shape[1] for n in (half, 1, n_fft // 4 - 2, 1, 1)]
    assert counts == [0, 1, 0, 1, 0]
