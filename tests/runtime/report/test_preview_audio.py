"""The audio of a report fits its space, keeps its place in time, and is as good as fits."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from bsmamba2.audio.array import Audio
from bsmamba2.report.preview_audio import PreviewAudio, choose_form

RATE = 44100


def encode(stems: Audio, max_bytes: int, rate: int = RATE, known: bool = True) -> list[bytes]:
    """Encodes stems in blocks of odd lengths."""
    tracks, channels, samples = stems.shape
    audio = PreviewAudio(tracks, rate, channels, samples if known else 0, max_bytes)
    for start in range(0, samples, 30011):
        audio.push(stems[..., start : start + 30011])
    return audio.finish()


def decode(files: list[bytes]) -> tuple[list[Audio], int]:
    read = [soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True) for file in files]
    return [samples.T for samples, _ in read], read[0][1]


def music(tracks: int, seconds: float, rate: int = RATE, seed: int = 0) -> Audio:
    """Noise whose spectrum falls with frequency, as that of music does."""
    white = np.random.default_rng(seed).standard_normal((tracks, 2, int(seconds * rate)))
    brown = np.cumsum(white, axis=-1)
    brown -= brown.mean(axis=-1, keepdims=True)
    scaled: Audio = (0.5 * brown / np.abs(brown).max(axis=-1, keepdims=True)).astype(np.float32)
    return scaled


@settings(max_examples=12)
@given(
    st.integers(1, 5), st.floats(0.2, 5), st.integers(60_000, 900_000), st.booleans(), st.booleans()
)
def test_the_files_never_exceed_their_space(
    tracks: int, seconds: float, max_bytes: int, is_noise: bool, known: bool
) -> None:
    stems = music(tracks, seconds)
    if is_noise:
        stems = np.random.default_rng(1).uniform(-1, 1, stems.shape).astype(np.float32)
    assert sum(map(len, encode(stems, max_bytes, known=known))) <= max_bytes


def test_audio_that_fits_keeps_its_samples_and_channels() -> None:
    stems = np.round(music(2, 1.5) * 2**15) / np.float32(2**15)
    files, rate = decode(encode(stems.astype(np.float32), 4_000_000))
    assert rate == RATE
    np.testing.assert_array_equal(files, stems)


@pytest.mark.parametrize(
    ("max_bytes", "rate", "channels"), [(700_000, 22050, 2), (300_000, 22050, 1)]
)
def test_less_space_costs_rate_then_channels_but_no_time(
    max_bytes: int, rate: int, channels: int
) -> None:
    files, got_rate = decode(encode(music(2, 15), max_bytes))
    assert (got_rate, files[0].shape) == (rate, (channels, 15 * rate))


def test_an_impulse_stays_where_it_is() -> None:
    stems = np.zeros((1, 2, 20 * RATE), np.float32)
    stems[..., 7 * RATE] = 0.9
    (file,), rate = decode(encode(stems, 300_000))
    assert rate == 22050
    assert np.abs(file).argmax(axis=-1).tolist() == [7 * rate] * len(file)


def test_a_song_that_does_not_fit_ends_early() -> None:
    audio = PreviewAudio(2, RATE, 2, 60 * RATE, 150_000)
    for start in range(0, 60 * RATE, RATE):
        audio.push(music(2, 1, seed=start))
    audio.finish()
    assert 3 < audio.seconds < 30


def test_a_quiet_stem_is_not_lost_next_to_a_loud_one() -> None:
    stems = music(2, 15) * np.array([[[0.01]], [[1]]], np.float32)
    files, rate = decode(encode(stems, 700_000))
    quiet = stems[0, :, :: RATE // rate].mean(axis=0)
    error = files[0].mean(axis=0) - quiet
    assert np.square(error).mean() < np.square(quiet).mean() / 100


@pytest.mark.parametrize("rate", [8000, 11025, 44101, 48000, 96000, 192000])
def test_any_rate_becomes_one_that_browsers_play(rate: int) -> None:
    form = choose_form(2, rate, 6, 10, 10_000_000)
    assert form.channels == 2
    assert 8000 <= form.sample_rate <= 48000
    stems = music(1, 0.5, rate)
    files, got = decode(encode(stems, 1_000_000, rate))
    assert files[0].shape[-1] / got == pytest.approx(0.5, abs=1e-3)
