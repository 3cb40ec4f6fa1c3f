"""A chunk reaches its graph in the form that the manifest states, and comes back as stems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bsmamba2.audio.array import Audio
from bsmamba2.engines.chunk_run import run_chunk
from bsmamba2.formats.manifest import Manifest


def manifest(**changes: Any) -> Manifest:
    return Manifest("m", n_fft=64, hop=16, chunk=256).replace(**changes)


def chunk(samples: int = 256, level: float = 1.0) -> Audio:
    noise: Audio = np.random.default_rng(0).normal(0, level, (2, samples)).astype(np.float32)
    return noise


class Graph:
    """A graph that returns one stem equal to its input, and remembers what it was given."""

    def __init__(self) -> None:
        self.inputs: list[Audio] = []

    def __call__(self, inputs: Sequence[Audio]) -> list[Audio]:
        self.inputs = list(inputs)
        return [values[:, np.newaxis] for values in inputs]


@pytest.mark.parametrize(
    "changes",
    [{}, {"io": "waveform"}, {"transform": "scnet"}, {"normalize": True}, {"fixed_length": True}],
)
@pytest.mark.parametrize("samples", [1, 33, 256])
def test_an_identity_graph_returns_the_chunk(changes: dict[str, Any], samples: int) -> None:
    stems = run_chunk(manifest(**changes), chunk(samples), Graph())
    assert stems.shape == (1, 2, samples)
    np.testing.assert_allclose(stems[0], chunk(samples), rtol=0, atol=1e-5)


def test_a_graph_of_both_gets_both_and_its_outputs_are_added() -> None:
    graph = Graph()
    stems = run_chunk(manifest(io="both"), chunk(), graph)
    assert [values.shape for values in graph.inputs] == [(1, 2, 17, 33, 2), (1, 2, 256)]
    np.testing.assert_allclose(stems[0], 2 * chunk(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("io", ["spectrum", "waveform", "both"])
def test_a_graph_of_fixed_length_always_gets_whole_chunks(io: str) -> None:
    short, whole = Graph(), Graph()
    run_chunk(manifest(io=io, fixed_length=True), chunk(100), short)
    run_chunk(manifest(io=io, fixed_length=True), chunk(256), whole)
    assert [v.shape for v in short.inputs] == [v.shape for v in whole.inputs]


@pytest.mark.parametrize("level", [1e-4, 1.0])
def test_a_normalised_chunk_has_the_same_level_however_loud_it_is(level: float) -> None:
    graph = Graph()
    run_chunk(manifest(io="waveform", normalize=True), chunk(level=level), graph)
    mono = graph.inputs[0][0].mean(0)
    assert (mono.mean(), mono.std()) == pytest.approx((0, 1), abs=1e-3)


def test_silence_can_be_normalised() -> None:
    silence = np.zeros((2, 256), np.float32)
    assert not run_chunk(manifest(normalize=True), silence, Graph()).any()


def test_the_lowest_bin_can_be_removed() -> None:
    constant = np.ones((2, 256), np.float32)
    assert np.abs(run_chunk(manifest(zero_dc=True), constant, Graph())[..., 64:-64]).max() < 0.6
    assert np.abs(run_chunk(manifest(), constant, Graph()) - 1).max() < 1e-5
