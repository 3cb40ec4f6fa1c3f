"""Ensembles and chains of stubs whose output is known: shares, sums, alignment, latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import Chain, Ensemble
from bsmamba2.audio.array import Audio, Exact
from bsmamba2.models.combined_model import combine
from bsmamba2.models.loaded_model import LoadedModel
from bsmamba2.pipeline import combined_separation
from bsmamba2.pipeline.open_pipeline import chunk_pipelines
from bsmamba2.pipeline.song_pipeline import SongPipeline
from support.engines import Stubs
from support.fixtures import Noise

SIZES: tuple[dict[str, Any], ...] = (
    {},
    {"chunk": 100, "overlap": 0.5},
    {"sample_rate": 48000, "chunk": 37, "n_fft": 16},
    {"sample_rate": 22050, "channels": 1},
)
"""Models of other chunks, hops, rates and channels."""


def pipeline(source: Any, rate: float = 44100, channels: int = 2, step: float = 0) -> SongPipeline:
    return chunk_pipelines(combine(source, LoadedModel), rate, channels, None, step)()


def separate(pipeline: SongPipeline, audio: Any, cuts: Sequence[int] = ()) -> Exact:
    """Pushes the audio in parts that are cut at these samples, and flushes."""
    parts = [pipeline.push(part) for part in np.split(audio, cuts, axis=1)]
    return np.concatenate([*parts, pipeline.flush()], axis=-1)


def different(stub: Stubs) -> Chain:
    """A chain and an ensemble of models that differ in everything."""
    models = [stub.restless(**sizes) for sizes in SIZES]
    return Chain(Ensemble(models[:3]), Ensemble([stub.six_shares(), models[3]]))


def test_the_average_of_equal_models_is_the_model(stub: Stubs, noise: Noise) -> None:
    audio, engine = noise(2, 700), stub.restless()
    for models in (2, 3, 7):
        together = separate(pipeline(Ensemble([engine] * models)), audio)
        np.testing.assert_array_equal(together, separate(pipeline(engine), audio))


def test_the_average_has_the_shares_of_the_weights(stub: Stubs, noise: Noise) -> None:
    audio = noise(2, 500)
    models = [stub.scaled(gain) for gain in (1.0, 0.2, 0.0)]
    vocals, rest = separate(pipeline(Ensemble(models, weights=[1, 2, 5])), audio)
    np.testing.assert_allclose(vocals, (1 + 2 * 0.2) / 8 * audio, atol=1e-7)
    np.testing.assert_allclose(rest, audio - vocals, atol=1e-12)


def test_the_median_of_three_ignores_an_outlier(stub: Stubs, noise: Noise) -> None:
    audio = noise(2, 500)
    models = [stub.half(), stub.scaled(1000), stub.half()]
    vocals, _ = separate(pipeline(Ensemble(models, "median")), audio)
    np.testing.assert_array_equal(vocals, np.float32(0.5) * audio)


@pytest.mark.parametrize(("method", "gain"), [("maximum", -0.7), ("minimum", 0.1)])
def test_extremes_are_those_of_the_magnitude(
    stub: Stubs, noise: Noise, method: str, gain: float
) -> None:
    audio = noise(2, 500)
    models = [stub.scaled(g) for g in (0.5, -0.7, 0.1)]
    vocals, _ = separate(pipeline(Ensemble(models, method)), audio)
    np.testing.assert_array_equal(vocals, np.float32(gain) * audio)


def test_in_a_bag_each_stem_comes_from_its_model(stub: Stubs, noise: Noise) -> None:
    audio = noise(2, 500)
    models = [stub.half(), stub.six_shares()]
    bag = Ensemble(models, stems=[["vocals"], ["drums", "bass"]])
    outputs = separate(pipeline(bag), audio)
    shares = np.array([0.5, 0.11, 0.07, 0.32, 0.5])  # and the residual, and the instrumental
    np.testing.assert_allclose(outputs, shares[:, np.newaxis, np.newaxis] * audio, atol=1e-7)


def test_a_chain_of_identities_is_the_identity(stub: Stubs, noise: Noise) -> None:
    audio = noise(2, 700)
    outputs = separate(pipeline(Chain(stub.identity(), stub.identity(chunk=100))), audio)
    np.testing.assert_allclose(outputs[0], audio, atol=1e-7)
    np.testing.assert_allclose(outputs[1:], 0, atol=1e-7)


def test_a_chain_separates_one_stem_of_the_first_model(stub: Stubs, noise: Noise) -> None:
    audio = noise(2, 700)
    outputs = separate(pipeline(Chain(stub.six_shares(), stub.scaled(0.25), stem="guitars")), audio)
    # The second model's stem and residual; then drums, bass, other, vocals, piano and the rest.
    shares = np.array([0.17 / 4, 0.17 * 3 / 4, 0.11, 0.07, 0.13, 0.29, 0.19, 0.04])
    np.testing.assert_allclose(outputs[:8], shares[:, np.newaxis, np.newaxis] * audio, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_models_of_different_chunks_and_rates_stay_aligned(stub: Stubs, rate: int) -> None:
    audio = np.zeros((2, 4000), np.float32)
    audio[:, 1700] = 1
    models = [stub.identity(**sizes) for sizes in SIZES]
    for source in (Ensemble(models), Chain(models[2], Chain(models[1], models[3]))):
        vocals = separate(pipeline(source, rate), audio)[0]
        assert vocals.shape == audio.shape
        assert (np.argmax(vocals, axis=1) == 1700).all()


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("length", [0, 1, 63, 3000])
def test_outputs_sum_to_the_mixture(stub: Stubs, noise: Noise, rate: int, length: int) -> None:
    audio = noise(2, length)
    outputs = separate(pipeline(different(stub), rate), audio)
    np.testing.assert_allclose(outputs[:3].sum(axis=0), audio, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("method", ["average", "median", "maximum", "minimum"])
def test_on_an_integer_grid_the_sum_is_exact(
    stub: Stubs, noise: Noise, bits: int, method: str
) -> None:
    step = 2.0 ** (1 - bits)
    audio = np.round(noise(2, 2000).astype(np.float64) / step) * step
    models = Ensemble([stub.six_shares(**sizes) for sizes in SIZES[:3]], method)
    chain = Chain(models, stub.restless(), stem="drums")
    outputs = separate(pipeline(chain, step=step), audio)[:-1]  # without the derived instrumental
    np.testing.assert_array_equal(outputs.sum(axis=0), audio)
    np.testing.assert_array_equal(outputs / step, np.round(outputs / step))


@given(
    rate=st.sampled_from([22050, 44100, 48000]),
    length=st.integers(0, 700),
    cuts=st.lists(st.integers(0, 700), max_size=8),
)
def test_output_does_not_depend_on_how_input_is_split(
    stub: Stubs, noise: Noise, rate: int, length: int, cuts: list[int]
) -> None:
    source, audio = different(stub), noise(2, length)
    cuts = sorted(min(cut, length) for cut in cuts)
    np.testing.assert_array_equal(
        separate(pipeline(source, rate), audio, cuts), separate(pipeline(source, rate), audio)
    )


def most_held(pipeline: SongPipeline, samples: int) -> int:
    """Returns the most samples that were pushed and not yet returned, one sample at a time."""
    audio: Audio = np.zeros((1, 1), np.float32)
    emitted, most = 0, 0
    for received in range(1, samples + 1):
        emitted += pipeline.push(audio).shape[-1]
        most = max(most, received - emitted)
    return most


def test_the_latency_of_an_ensemble_is_that_of_its_slowest_model(stub: Stubs) -> None:
    models = [stub.identity(**sizes, channels=1) for sizes in SIZES[:2]]
    both = pipeline(Ensemble(models), channels=1)
    assert both.latency_samples == max(pipeline(m, channels=1).latency_samples for m in models)
    assert most_held(both, 800) == both.latency_samples


def test_a_chain_never_holds_more_than_its_latency(stub: Stubs) -> None:
    models = [stub.identity(**sizes, channels=1) for sizes in SIZES[:2]]
    both = pipeline(Chain(models[0], models[1]), channels=1)
    assert both.latency_samples == sum(pipeline(m, channels=1).latency_samples for m in models)
    assert max(SIZES[1]["chunk"], 64) < most_held(both, 1500) <= both.latency_samples


def test_memory_does_not_grow_with_the_song(stub: Stubs) -> None:
    song = pipeline(different(stub))
    audio, sizes = np.zeros((2, 2000), np.float32), []
    for _ in range(12):
        song.push(audio)
        waiting: Any = song._separation
        sizes.append([fifo._buffer.nbytes for fifo in waiting._waiting._held])
    assert sizes[5:] == [sizes[5]] * 7


@pytest.mark.parametrize("samples", [1, 2, 9, 64])
def test_a_sum_of_many_models_has_the_same_bits_at_every_length(samples: int) -> None:
    values = np.random.default_rng(0).normal(size=(13, 1, 64))
    weights = np.ones(13)
    whole = combined_separation.combine(values, "average", weights)
    part = combined_separation.combine(values[..., :samples], "average", weights)
    np.testing.assert_array_equal(part, whole[..., :samples])
