"""The transform as a stream equals the transform of the whole, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.audio.stft import istft, stft
from bsmamba2.audio.stft_stream import IstftStream, StftStream

SIZES = st.sampled_from([(16, 4), (16, 3), (64, 13), (2048, 441)])


def frames(audio, n_fft, hop, cuts=()):
    stream = StftStream(len(audio), n_fft, hop)
    parts = [stream.push(part) for part in np.split(audio, cuts, axis=1)]
    return np.concatenate([*parts, stream.flush()], axis=1)


def samples(spectrum, n_fft, hop, length, cuts=()):
    stream = IstftStream(len(spectrum), n_fft, hop)
    parts = [stream.push(part) for part in np.split(spectrum, cuts, axis=1)]
    came = np.concatenate(parts, axis=1)
    return np.concatenate([came, stream.flush(max(0, length - came.shape[1]))], axis=1)[:, :length]


@given(SIZES, st.integers(1, 6000), st.lists(st.integers(0, 6000), max_size=9))
def test_the_frames_are_those_of_the_whole_however_it_is_cut(noise, size, length, cuts):
    audio = noise(2, length)
    np.testing.assert_array_equal(frames(audio, *size, sorted(cuts)), stft(audio, *size))


@given(SIZES, st.integers(1, 6000), st.lists(st.integers(0, 99), max_size=9))
def test_the_samples_are_those_of_the_whole_however_it_is_cut(noise, size, length, cuts):
    spectrum = stft(noise(2, length), *size)
    spectrum *= noise(1, spectrum.shape[1]).reshape(1, -1, 1, 1)
    np.testing.assert_array_equal(
        samples(spectrum, *size, length, sorted(cuts)), istft(spectrum, *size, length)
    )


def test_pushes_of_one_sample_give_the_same_frames(noise):
    audio = noise(1, 100)
    np.testing.assert_array_equal(frames(audio, 16, 3, range(100)), stft(audio, 16, 3))


def test_no_samples_are_no_frames():
    assert frames(np.zeros((2, 0), np.float32), 16, 4).shape == (2, 0, 9, 2)


@pytest.mark.parametrize("n_fft", [16, 2048])
def test_a_frame_comes_with_the_last_sample_that_it_hears(noise, n_fft):
    stream, half = StftStream(1, n_fft, n_fft // 4), n_fft // 2
    counts = [stream.push(noise(1, n)).shape[1] for n in (half, 1, n_fft // 4 - 2, 1, 1)]
    assert counts == [0, 1, 0, 1, 0]
