"""A model at its own rate inside a song: stems of the song's rate and length."""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2.pipeline.overlap_add import OverlapAdd
from bsmamba2.pipeline.resampled_core import ResampledCore
from support.engines import Stubs
from support.fixtures import Noise


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("length", [0, 1, 777])
def test_stems_have_the_length_of_the_song(
    stub: Stubs, noise: Noise, rate: int, length: int
) -> None:
    core = ResampledCore(OverlapAdd(stub.left_and_right(), 0.25), rate, 2)
    parts = [core.push(noise(2, length)), core.flush()]
    assert np.concatenate(parts, axis=-1).shape == (2, 2, length)


def test_at_the_models_own_rate_nothing_is_resampled(stub: Stubs, noise: Noise) -> None:
    core = ResampledCore(OverlapAdd(stub.half(overlap=0.0), 0.0), 44100, 2)
    audio = noise(2, 640)
    stems = np.concatenate([core.push(audio), core.flush()], axis=-1)
    np.testing.assert_array_equal(stems[0], np.float32(0.5) * audio)


def test_the_latency_is_a_chunk_at_the_models_own_rate(stub: Stubs) -> None:
    assert ResampledCore(OverlapAdd(stub.half(), 0.25), 44100, 2).latency_samples == 64
