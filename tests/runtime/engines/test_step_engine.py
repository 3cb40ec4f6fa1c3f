"""The engine for the steps of a stream, on a shipped graph with random weights."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bsmamba2 import AudioError, ModelError, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.audio.schedule import Schedule
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.capture import CAPTURE
from bsmamba2.devices.device import CPU
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.step_engine import StepEngine, StepsAsEngine
from bsmamba2.formats.manifest import State
from bsmamba2.models.graph import shipped_graphs
from support.streams import run_steps

GRAPHS = {graph.path.stem: graph for graph in shipped_graphs()}
TINY = GRAPHS["tiny-streaming"]
SCHEDULE = Schedule(3, 2)

Weights = dict[str, Audio]


@pytest.fixture(scope="module")
def weights() -> Weights:
    random = np.random.default_rng(0)
    shapes = TINY.manifest.initialisers.items()
    return {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes}


@pytest.fixture(scope="module")
def engine(weights: Weights) -> StepEngine:
    return StepEngine(TINY, CPU, weights)


def spectrum(frames: int, batch: int = 1, seed: int = 0) -> Audio:
    shape = batch, 2, frames, 1025, 2
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def separate(engine: StepEngine, frames: Audio) -> Audio:
    """Separates a whole spectrum as one stream, from a reset on."""
    engine.reset()
    return np.concatenate(run_steps(engine.step, frames, SCHEDULE), axis=3)


def test_a_step_depends_on_the_previous_steps_until_a_reset(engine: StepEngine) -> None:
    engine.reset()
    first, second = (engine.step(spectrum(3), spectrum(2))[0] for _ in range(2))
    engine.reset()
    np.testing.assert_array_equal(engine.step(spectrum(3), spectrum(2))[0], first)
    assert snr_db(first, second) < 60


def test_a_block_does_not_depend_on_frames_beyond_its_lookahead(engine: StepEngine) -> None:
    changed = np.concatenate([spectrum(20)[:, :, :9], spectrum(11, seed=1)], axis=2)
    one, other = separate(engine, spectrum(20)), separate(engine, changed)
    np.testing.assert_array_equal(one[:, :, :, :6], other[:, :, :, :6])
    assert snr_db(one[:, :, :, 6:9], other[:, :, :, 6:9]) < 60


def test_states_of_a_stream_are_not_freed_while_a_graph_is_recorded(engine: StepEngine) -> None:
    stream = engine.another()
    stream.step(spectrum(3), spectrum(2))
    state = weakref.ref(stream._carried.objects[0])
    with CAPTURE.recording():
        del stream
        assert state() is not None
    assert state() is None


def test_states_alternate_between_two_sets_of_buffers(engine: StepEngine) -> None:
    engine.reset()
    carried = []
    for _ in range(4):
        engine.step(spectrum(3), spectrum(2))
        carried.append(engine._carried)
    assert carried[0] is carried[2] is not carried[1] is carried[3]
    assert [tuple(v.shape()) for v in carried[0].objects] == [s.shape for s in TINY.manifest.states]


def test_streams_in_a_batch_are_independent(engine: StepEngine) -> None:
    pair = spectrum(11, batch=2)
    alone = np.concatenate([separate(engine, pair[:1]), separate(engine, pair[1:])])
    assert snr_db(alone, separate(engine, pair)) >= 100


def test_the_kernel_agrees_with_plain_operators_to_100_db(
    engine: StepEngine, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSMAMBA2_KERNEL", "off")
    plain = StepEngine(TINY, CPU, weights)
    assert snr_db(separate(plain, spectrum(80)), separate(engine, spectrum(80))) >= 100


@pytest.mark.parametrize(
    ("block", "lookahead", "message"),
    [
        (
            spectrum(3)[0],
            spectrum(2),
            r"block must be float32 of \(batch, 2, frames ≥ 0, 1025, 2\); got float32",
        ),
        (spectrum(3), spectrum(0), "lookahead must be .* frames ≥ 1"),
        (
            spectrum(3),
            spectrum(2).astype(np.float64),
            "lookahead must be float32 .* got float64",
        ),
        (
            spectrum(3)[:, :1],
            spectrum(2),
            r"block must be .* got float32 of \(1, 1, 3, 1025, 2\)",
        ),
        (
            spectrum(3),
            spectrum(2, batch=2),
            "lookahead must have the stream's batch, 1; got 2: reset",
        ),
        (
            spectrum(3, batch=2),
            spectrum(2, batch=2),
            "block must have the stream's batch, 1; got 2: reset",
        ),
    ],
)
def test_a_wrong_shape_is_refused_and_leaves_the_stream_unchanged(
    engine: StepEngine, block: Audio, lookahead: Audio, message: str
) -> None:
    expected = separate(engine, spectrum(7))
    engine.reset()
    got = [engine.step(spectrum(7)[:, :, :3], spectrum(7)[:, :, 3:5])[0]]
    with pytest.raises(AudioError, match=message):
        engine.step(block, lookahead)
    got += engine.step(spectrum(7)[:, :, 3:6], spectrum(7)[:, :, 6:])
    np.testing.assert_array_equal(np.concatenate(got, 3), expected)


def test_a_graph_for_whole_chunks_is_refused_with_a_fix(weights: Weights) -> None:
    with pytest.raises(ModelError, match="takes whole chunks, .*: export it with streaming=True"):
        StepEngine(GRAPHS["tiny"], CPU, weights)


def test_states_that_the_graph_does_not_have_are_refused(weights: Weights) -> None:
    manifest = TINY.manifest.replace(states=(State("memory", (25, 3)),))
    with pytest.raises(ModelError, match="the inputs that its manifest lists .*memory"):
        StepEngine(replace(TINY, manifest=manifest), CPU, weights)


def test_streams_of_one_model_share_its_session_but_not_its_states(engine: StepEngine) -> None:
    frames = spectrum(12)
    expected = separate(engine, frames)
    streams = engine.another(), engine.another()
    outputs: list[list[tuple[Audio, Audio]]] = [[], []]
    for part in SCHEDULE.steps(12):
        for stream, kept in zip(streams, outputs, strict=True):
            kept.append(stream.step(frames[:, :, part.block], frames[:, :, part.lookahead]))
    for kept in outputs:
        blocks = [block for block, _ in kept] + [kept[-1][1]]
        np.testing.assert_array_equal(np.concatenate(blocks, 3), expected)


def test_a_streaming_model_runs_whole_chunks_like_the_graph_for_chunks(
    engine: StepEngine, weights: Weights
) -> None:
    chunk = np.random.default_rng(0).uniform(-1, 1, (2, 9000)).astype(np.float32)
    expected = OrtEngine(GRAPHS["tiny"], CPU, weights).run(chunk)
    assert snr_db(expected, StepsAsEngine(engine).run(chunk)) >= 100


def test_a_whole_spectrum_leaves_the_stream_unchanged(engine: StepEngine) -> None:
    expected = separate(engine, spectrum(7))
    engine.reset()
    got = [engine.step(spectrum(7)[:, :, :3], spectrum(7)[:, :, 3:5])[0]]
    engine.whole(spectrum(4, seed=1))
    got += engine.step(spectrum(7)[:, :, 3:6], spectrum(7)[:, :, 6:])
    np.testing.assert_array_equal(np.concatenate(got, 3), expected)


def test_a_checkpoint_streams_at_any_rate_with_a_lookahead(
    weights: Weights, tmp_path: Path
) -> None:
    save_file(weights, tmp_path / "voice.safetensors")
    separator = Separator(tmp_path / "voice.safetensors", device="cpu")
    whole, parts = (separator.stream(48000, lookahead_ms=100) for _ in range(2))
    assert whole.latency_samples < 0.4 * 48000
    audio = np.random.default_rng(0).uniform(-1, 1, (2, 30000)).astype(np.float32)
    expected = np.concatenate([[*whole.push(audio).values()], [*whole.flush().values()]], axis=-1)
    pushed = [[*parts.push(part).values()] for part in np.split(audio, [1, 999, 20000], 1)]
    pushed.append([*parts.flush().values()])
    np.testing.assert_array_equal(np.concatenate(pushed, -1), expected)
    np.testing.assert_allclose(expected.sum(axis=0), audio, rtol=0, atol=1e-6)
