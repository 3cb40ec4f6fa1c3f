"""From a loaded model to pipelines: whole chunks or steps, each model with its own settings."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from bsmamba2 import Cancelled, Chain, Ensemble, ModelError
from bsmamba2.models.combined_model import combine
from bsmamba2.models.loaded_model import LoadedModel
from bsmamba2.pipeline.open_pipeline import chunk_pipelines, step_pipelines
from support.engines import StubEngine, Stubs
from support.fixtures import Noise


def lengths(engine: StubEngine, other: StubEngine, overlap: float | None) -> tuple[int, int]:
    """Returns how often each engine of a chain runs."""
    start = chunk_pipelines(combine(Chain(engine, other), LoadedModel), 44100, 2, overlap)
    pipeline = start()
    pipeline.push(np.ones((2, 640), np.float32))
    pipeline.flush()
    return len(engine.lengths), len(other.lengths)


def test_each_model_has_its_own_overlap_unless_one_is_given(stub: Stubs) -> None:
    apart = stub.half(overlap=0.0), stub.half(overlap=0.5)
    assert lengths(*apart, None) == (10, 19)
    same = stub.half(overlap=0.0), stub.half(overlap=0.5)
    assert lengths(*same, 0.0) == (10, 10)


def test_every_call_starts_a_new_pipeline(stub: Stubs, noise: Noise) -> None:
    start = chunk_pipelines(combine(Ensemble([stub.half()] * 2), LoadedModel), 44100, 2, None)
    first, second = start(), start()
    received = first.push(noise(2, 99)).shape[-1]
    assert second.flush().shape[-1] == 0
    assert received + first.flush().shape[-1] == 99


def test_a_caller_can_stop_any_model_of_a_combination(stub: Stubs) -> None:
    cancel = threading.Event()
    model = combine(Chain(stub.half(), stub.half()), LoadedModel)
    pipeline = chunk_pipelines(model, 44100, 2, None, cancel=cancel)()
    pipeline.push(np.ones((2, 200), np.float32))
    cancel.set()
    with pytest.raises(Cancelled):
        pipeline.flush()


def test_a_lookahead_needs_steps_of_every_model(stub: Stubs) -> None:
    model = combine(Ensemble([stub.half(), stub.half()]), LoadedModel)
    with pytest.raises(ModelError, match="lookahead_ms must be None with an engine"):
        step_pipelines(model, 44100, 2, 100, 100)
