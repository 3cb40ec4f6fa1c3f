"""The transform as matrix products agrees with the transform by FFT, and inverts it."""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2.audio.fourier import ANALYSIS, SYNTHESIS, matrices, power
from bsmamba2.audio.snr import snr_db
from bsmamba2.audio.stft import hann, stft
from support.fixtures import Noise

SIZES = pytest.mark.parametrize(("n_fft", "hop"), [(16, 4), (16, 3), (64, 13)])


@SIZES
def test_analysis_of_a_frame_is_its_windowed_spectrum(noise: Noise, n_fft: int, hop: int) -> None:
    analysis = matrices(n_fft, hop)[ANALYSIS]
    frame = np.zeros((1, analysis.shape[0]), np.float32)
    frame[:, :n_fft] = noise(1, n_fft)
    expected = stft(frame[:, :n_fft], n_fft, n_fft // 2)[0, 1]
    np.testing.assert_allclose((frame @ analysis).reshape(-1, 2), expected, atol=1e-5)


@pytest.mark.parametrize(("n_fft", "hop"), [(2048, 441), (4096, 1024), (64, 10), (64, 16)])
def test_analysis_is_accurate_to_110_db_at_the_sizes_of_models(
    noise: Noise, n_fft: int, hop: int
) -> None:
    analysis, frame = matrices(n_fft, hop)[ANALYSIS], noise(1, n_fft)[0]
    expected = stft(frame, n_fft, n_fft // 2)[1]
    padded = np.pad(frame, (0, len(analysis) - n_fft))
    assert snr_db(expected, (padded @ analysis).reshape(-1, 2)) > 110


@SIZES
def test_synthesis_of_analysis_is_the_frame_times_the_squared_window(
    noise: Noise, n_fft: int, hop: int
) -> None:
    matrix = matrices(n_fft, hop)
    frame = noise(1, matrix[ANALYSIS].shape[0])
    frame[:, n_fft:] = 0
    expected = frame * power(n_fft, hop).reshape(-1)
    np.testing.assert_allclose(frame @ matrix[ANALYSIS] @ matrix[SYNTHESIS], expected, atol=1e-5)


@SIZES
def test_matrices_ignore_the_padding_to_whole_hops(n_fft: int, hop: int) -> None:
    matrix = matrices(n_fft, hop)
    assert matrix[ANALYSIS].shape[0] % hop == 0
    assert not matrix[ANALYSIS][n_fft:].any()
    assert not matrix[SYNTHESIS][:, n_fft:].any()


@SIZES
def test_power_is_the_squared_window_in_rows_of_a_hop(n_fft: int, hop: int) -> None:
    rows = power(n_fft, hop)
    assert rows.shape == (-(-n_fft // hop), hop)
    np.testing.assert_allclose(rows.reshape(-1)[:n_fft], hann(n_fft) ** 2, atol=1e-6)
