"""The whole pipeline: outputs sum to the input, with its rate, length and channels, undelayed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError
from bsmamba2.audio.array import Audio, Exact
from bsmamba2.pipeline.song_pipeline import SongPipeline
from support.engines import Stubs
from support.fixtures import Noise

RATES = (8000, 22050, 44100, 48000, 96000, 192000)


def separate(
    pipeline: SongPipeline, audio: npt.NDArray[np.floating], cuts: Sequence[int] = ()
) -> Exact:
    """Pushes the audio in parts that are cut at these samples, and flushes."""
    parts = [pipeline.push(part) for part in np.split(audio, cuts, axis=1)]
    return np.concatenate([*parts, pipeline.flush()], axis=-1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", RATES)
def test_outputs_sum_to_the_mixture_at_every_rate(
    stub: Stubs, noise: Noise, rate: int, channels: int
) -> None:
    for length in (0, 1, 2, 100, 4999):
        audio = noise(channels, length)
        outputs = separate(
            SongPipeline.by_chunks(stub.lower_half_band(), rate, channels, 0.25), audio
        )
        assert outputs.shape == (2, channels, length)
        np.testing.assert_allclose(outputs.sum(axis=0), audio, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", RATES)
def test_a_sine_below_nine_tenths_of_the_band_is_preserved(stub: Stubs, rate: int) -> None:
    t = np.arange(rate // 2) / rate
    audio = np.sin(2 * np.pi * 0.44 * min(rate, 44100) * t)[np.newaxis].astype(np.float32)
    engine = stub.identity(chunk=4096, channels=1)
    vocals, _ = separate(SongPipeline.by_chunks(engine, rate, 1, 0.25), audio)
    inner = slice(rate // 20, -rate // 20)
    assert np.abs(vocals - audio)[0, inner].max() < 1e-4


@pytest.mark.parametrize("rate", RATES)
def test_an_impulse_keeps_its_position(stub: Stubs, rate: int) -> None:
    audio = np.zeros((1, 9999), np.float32)
    audio[0, 5000] = 1
    vocals, _ = separate(SongPipeline.by_chunks(stub.identity(), rate, 1, 0.5), audio)
    assert np.argmax(vocals) == 5000


@given(
    rate=st.sampled_from(RATES),
    length=st.integers(0, 800),
    cuts=st.lists(st.integers(0, 800), max_size=12),
    channels=st.integers(1, 2),
    overlap=st.floats(0, 0.95),
)
def test_output_does_not_depend_on_how_input_is_split(
    stub: Stubs,
    noise: Noise,
    rate: int,
    length: int,
    cuts: list[int],
    channels: int,
    overlap: float,
) -> None:
    engine, audio = stub.restless(), noise(channels, length)
    cuts = sorted(min(cut, length) for cut in cuts)
    np.testing.assert_array_equal(
        separate(SongPipeline.by_chunks(engine, rate, channels, overlap), audio, cuts),
        separate(SongPipeline.by_chunks(engine, rate, channels, overlap), audio),
    )


@pytest.mark.parametrize("rate", [44100, 48000])
def test_pushes_of_one_sample_return_the_same_bits(stub: Stubs, noise: Noise, rate: int) -> None:
    engine, audio = stub.restless(), noise(2, 500)
    whole = separate(SongPipeline.by_chunks(engine, rate, 2, 0.3), audio)
    single = separate(SongPipeline.by_chunks(engine, rate, 2, 0.3), audio, range(1, 500))
    np.testing.assert_array_equal(single, whole)


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_on_an_integer_grid_the_sum_is_exact(
    stub: Stubs, noise: Noise, bits: int, rate: int
) -> None:
    step = 2.0 ** (1 - bits)
    audio = np.round(noise(2, 3000).astype(np.float64) / step) * step
    outputs = separate(SongPipeline.by_chunks(stub.restless(), rate, 2, 0.25, step), audio)
    np.testing.assert_array_equal(outputs.sum(axis=0), audio)
    np.testing.assert_array_equal(outputs / step, np.round(outputs / step))


def tones(kind: str, samples: int = 60_000) -> Exact:
    """A sine, a sweep, or a plucked chord."""
    t = np.arange(samples) / 44100
    phase = {"sine": 440 * t, "sweep": 100 * t + 1500 * t**2}.get(kind)
    if phase is not None:
        tone: Exact = np.sin(2 * np.pi * phase)
        return tone
    chord: Exact = np.sin(2 * np.pi * np.outer([220, 277.2, 329.6], t)).sum(axis=0) / 3
    return chord * np.exp(-5 * (t % 0.3))  # decays after each pluck, as music does


@pytest.mark.parametrize("kind", ["sine", "sweep", "plucks"])
@pytest.mark.parametrize("rate", [44100, 48000])
def test_chunks_of_different_levels_are_joined_without_a_click(
    stub: Stubs, kind: str, rate: int
) -> None:
    gains = np.random.default_rng(0).uniform(0.8, 1.2, 100)
    engine = stub.of(lambda chunk: gains[len(engine.lengths)] * chunk[np.newaxis], chunk=8000)
    audio = np.tile(tones(kind), (2, 1)).astype(np.float32)
    vocals, _ = separate(SongPipeline.by_chunks(engine, rate, 2, 0.25), audio)
    bend = np.abs(np.diff(vocals[0], 2)) / np.abs(np.diff(audio[0], 2)).max()
    ends = np.arange(6000, 59_000, 6000)  # of the fades, at the engine's rate
    ends = np.concatenate([ends, ends + 2000]) * rate // 44100
    joins = np.concatenate([np.arange(end - 20, end + 20) for end in ends if end < 59_900])
    assert bend[joins].max() <= 1.2
    assert bend[joins].max() <= 1.02 * np.delete(bend, joins).max()


def test_mono_through_a_stereo_engine_is_the_mean_of_its_channels(
    stub: Stubs, noise: Noise
) -> None:
    def uneven(chunk: Audio) -> Audio:
        return chunk[np.newaxis] * np.array([[0.25], [0.75]], np.float32)

    audio = noise(1, 500)
    vocals, _ = separate(SongPipeline.by_chunks(stub.of(uneven), 44100, 1, 0.25), audio)
    np.testing.assert_allclose(vocals, audio / 2, rtol=0, atol=1e-6)


def test_a_mono_engine_separates_stereo_channel_by_channel(stub: Stubs, noise: Noise) -> None:
    engine, audio = stub.lower_half_band(channels=1), noise(2, 500)
    both = separate(SongPipeline.by_chunks(engine, 48000, 2, 0.25), audio)
    left = separate(SongPipeline.by_chunks(engine, 48000, 1, 0.25), audio[:1])
    np.testing.assert_array_equal(both[:, :1], left)


def test_a_model_without_a_residual_returns_only_its_stems(stub: Stubs, noise: Noise) -> None:
    audio = noise(2, 500)
    left, right = separate(SongPipeline.by_chunks(stub.left_and_right(), 44100, 2, 0.25), audio)
    np.testing.assert_array_equal(left + right, audio)


@pytest.mark.parametrize("channels", [0, 65])
def test_an_impossible_number_of_channels_is_refused(stub: Stubs, channels: int) -> None:
    with pytest.raises(AudioError, match=f"must have 1 to 64 channels; got {channels}"):
        SongPipeline.by_chunks(stub.identity(), 44100, channels, 0.25)


def test_a_sample_that_is_not_finite_is_reported_with_its_time_in_the_song(
    stub: Stubs, noise: Noise
) -> None:
    audio = noise(2, 2000)
    audio[0, 1000] = np.nan
    pipeline = SongPipeline.by_chunks(stub.identity(), 8000, 2, 0.25)
    with pytest.raises(AudioError, match=r"channel 1 is nan at 0\.125000 s"):
        separate(pipeline, audio, range(100, 2000, 100))


def test_a_float64_sample_beyond_float32_is_not_finite(stub: Stubs) -> None:
    with pytest.raises(AudioError, match="channel 1 is inf at 0"):
        SongPipeline.by_chunks(stub.identity(), 44100, 1, 0.25).push(np.full((1, 9), 1e300))
