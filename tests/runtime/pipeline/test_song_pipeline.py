"""The whole stream: it sums to its input, keeps rate, length and channels, and has no delay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError
from bsmamba2.pipeline.song_pipeline import SongPipeline

RATES = (8000, 22050, 44100, 48000, 96000, 192000)


def through(stream, audio, cuts=()):
    parts = [stream.push(part) for part in np.split(audio, cuts, axis=1)]
    return np.concatenate([*parts, stream.flush()], axis=-1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", RATES)
def test_all_outputs_sum_to_the_mixture_whatever_the_rate(stub, noise, rate, channels):
    for length in (0, 1, 2, 100, 4999):
        audio = noise(channels, length)
        outputs = through(
            SongPipeline.by_chunks(stub.lower_half_band(), rate, channels, 0.25), audio
        )
        assert outputs.shape == (2, channels, length)
        np.testing.assert_allclose(outputs.sum(axis=0), audio, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", RATES)
def test_a_sine_below_nine_tenths_of_the_band_comes_back(stub, rate):
    t = np.arange(rate // 2) / rate
    audio = np.sin(2 * np.pi * 0.44 * min(rate, 44100) * t)[np.newaxis].astype(np.float32)
    engine = stub.identity(chunk=4096, channels=1)
    vocals, _ = through(SongPipeline.by_chunks(engine, rate, 1, 0.25), audio)
    inner = slice(rate // 20, -rate // 20)
    assert np.abs(vocals - audio)[0, inner].max() < 1e-4


@pytest.mark.parametrize("rate", RATES)
def test_an_impulse_comes_back_at_its_own_sample(stub, rate):
    audio = np.zeros((1, 9999), np.float32)
    audio[0, 5000] = 1
    vocals, _ = through(SongPipeline.by_chunks(stub.identity(), rate, 1, 0.5), audio)
    assert np.argmax(vocals) == 5000


@given(
    rate=st.sampled_from(RATES),
    length=st.integers(0, 800),
    cuts=st.lists(st.integers(0, 800), max_size=12),
    channels=st.integers(1, 2),
    overlap=st.floats(0, 0.95),
)
def test_the_output_does_not_depend_on_the_pushes(
    stub, noise, rate, length, cuts, channels, overlap
):
    engine, audio = stub.restless(), noise(channels, length)
    cuts = sorted(min(cut, length) for cut in cuts)
    np.testing.assert_array_equal(
        through(SongPipeline.by_chunks(engine, rate, channels, overlap), audio, cuts),
        through(SongPipeline.by_chunks(engine, rate, channels, overlap), audio),
    )


@pytest.mark.parametrize("rate", [44100, 48000])
def test_pushes_of_one_sample_give_the_same_bits(stub, noise, rate):
    engine, audio = stub.restless(), noise(2, 500)
    whole = through(SongPipeline.by_chunks(engine, rate, 2, 0.3), audio)
    single = through(SongPipeline.by_chunks(engine, rate, 2, 0.3), audio, range(1, 500))
    np.testing.assert_array_equal(single, whole)


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_on_an_integer_grid_the_sum_is_exact(stub, noise, bits, rate):
    step = 2.0 ** (1 - bits)
    audio = np.round(noise(2, 3000).astype(np.float64) / step) * step
    outputs = through(SongPipeline.by_chunks(stub.restless(), rate, 2, 0.25, step), audio)
    np.testing.assert_array_equal(outputs.sum(axis=0), audio)
    np.testing.assert_array_equal(outputs / step, np.round(outputs / step))


def tones(kind, samples=60_000):
    t = np.arange(samples) / 44100
    phase = {"sine": 440 * t, "sweep": 100 * t + 1500 * t**2}.get(kind)
    if phase is not None:
        return np.sin(2 * np.pi * phase)
    chord = np.sin(2 * np.pi * np.outer([220, 277.2, 329.6], t)).sum(axis=0) / 3
    return chord * np.exp(-5 * (t % 0.3))  # plucked, as music is


@pytest.mark.parametrize("kind", ["sine", "sweep", "plucks"])
@pytest.mark.parametrize("rate", [44100, 48000])
def test_chunks_that_differ_in_level_join_without_a_click(stub, kind, rate):
    gains = np.random.default_rng(0).uniform(0.8, 1.2, 100)
    engine = stub.of(lambda chunk: gains[len(engine.lengths)] * chunk[np.newaxis], chunk=8000)
    audio = np.tile(tones(kind), (2, 1)).astype(np.float32)
    vocals, _ = through(SongPipeline.by_chunks(engine, rate, 2, 0.25), audio)
    bend = np.abs(np.diff(vocals[0], 2)) / np.abs(np.diff(audio[0], 2)).max()
    ends = np.arange(6000, 59_000, 6000)  # of the fades, at the engine's rate
    ends = np.concatenate([ends, ends + 2000]) * rate // 44100
    joins = np.concatenate([np.arange(end - 20, end + 20) for end in ends if end < 59_900])
    assert bend[joins].max() <= 1.2
    assert bend[joins].max() <= 1.02 * np.delete(bend, joins).max()


def test_mono_through_a_stereo_engine_is_the_mean_of_its_channels(stub, noise):
    def uneven(chunk):
        return chunk[np.newaxis] * np.float32([[0.25], [0.75]])

    audio = noise(1, 500)
    vocals, _ = through(SongPipeline.by_chunks(stub.of(uneven), 44100, 1, 0.25), audio)
    np.testing.assert_allclose(vocals, audio / 2, rtol=0, atol=1e-6)


def test_stereo_through_a_mono_engine_goes_channel_by_channel(stub, noise):
    engine, audio = stub.lower_half_band(channels=1), noise(2, 500)
    both = through(SongPipeline.by_chunks(engine, 48000, 2, 0.25), audio)
    left = through(SongPipeline.by_chunks(engine, 48000, 1, 0.25), audio[:1])
    np.testing.assert_array_equal(both[:, :1], left)


def test_a_model_without_a_residual_returns_its_stems_alone(stub, noise):
    audio = noise(2, 500)
    left, right = through(SongPipeline.by_chunks(stub.left_and_right(), 44100, 2, 0.25), audio)
    np.testing.assert_array_equal(left + right, audio)


@pytest.mark.parametrize("channels", [0, 65])
def test_what_is_no_number_of_channels_is_refused(stub, channels):
    with pytest.raises(AudioError, match=f"must have 1 to 64 channels; got {channels}"):
        SongPipeline.by_chunks(stub.identity(), 44100, channels, 0.25)


def test_a_sample_that_is_not_finite_is_named_with_its_time_in_the_song(stub, noise):
    audio = noise(2, 2000)
    audio[0, 1000] = np.nan
    with pytest.raises(AudioError, match=r"channel 1 is nan at 0\.125000 s"):
        through(
            SongPipeline.by_chunks(stub.identity(), 8000, 2, 0.25), audio, range(100, 2000, 100)
        )


def test_a_float64_sample_beyond_float32_is_not_finite(stub):
    with pytest.raises(AudioError, match="channel 1 is inf at 0"):
        SongPipeline.by_chunks(stub.identity(), 44100, 1, 0.25).push(np.full((1, 9), 1e300))
