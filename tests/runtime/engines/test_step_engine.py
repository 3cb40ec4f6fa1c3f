"""The engine of a stream's steps, on a shipped graph with random weights: no torch, no onnx."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from bsmamba2 import AudioError, ModelError, Separator
from bsmamba2.audio.schedule import Schedule
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import CPU
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.step_engine import StepEngine, StepsAsEngine
from bsmamba2.formats.manifest import State
from bsmamba2.models.graph import shipped_graphs
from support.streams import run_steps

GRAPHS = {graph.path.stem: graph for graph in shipped_graphs()}
TINY = GRAPHS["tiny-streaming"]


@pytest.fixture(scope="module")
def weights():
    random = np.random.default_rng(0)
    shapes = TINY.manifest.initialisers.items()
    return {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes}


@pytest.fixture(scope="module")
def engine(weights):
    return StepEngine(TINY, CPU, weights)


def noise(frames, batch=1, seed=0):
    shape = batch, 2, frames, 1025, 2
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def stream(engine, spectrum, schedule=Schedule(3, 2)):  # noqa: B008 - a frozen dataclass
    engine.reset()
    return np.concatenate(run_steps(engine.step, spectrum, schedule), axis=3)


def test_a_step_remembers_the_one_before_and_a_reset_forgets(engine):
    engine.reset()
    first, again = (engine.step(noise(3), noise(2))[0] for _ in range(2))
    engine.reset()
    np.testing.assert_array_equal(engine.step(noise(3), noise(2))[0], first)
    assert snr_db(first, again) < 60


def test_a_block_does_not_depend_on_what_lies_beyond_its_lookahead(engine):
    changed = np.concatenate([noise(20)[:, :, :9], noise(11, seed=1)], axis=2)
    one, other = stream(engine, noise(20)), stream(engine, changed)
    np.testing.assert_array_equal(one[:, :, :, :6], other[:, :, :, :6])
    assert snr_db(one[:, :, :, 6:9], other[:, :, :, 6:9]) < 60


def test_states_stay_in_two_sets_of_buffers_that_change_places(engine):
    engine.reset()
    carried = []
    for _ in range(4):
        engine.step(noise(3), noise(2))
        carried.append(engine._carried)
    assert carried[0] is carried[2] is not carried[1] is carried[3]
    assert [tuple(v.shape()) for v in carried[0]] == [s.shape for s in TINY.manifest.states]


def test_streams_of_a_batch_do_not_hear_each_other(engine):
    pair = noise(11, batch=2)
    alone = np.concatenate([stream(engine, pair[:1]), stream(engine, pair[1:])])
    assert snr_db(alone, stream(engine, pair)) >= 100


def test_the_kernel_and_plain_operators_agree_to_100_db(engine, weights, monkeypatch):
    monkeypatch.setenv("BSMAMBA2_KERNEL", "off")
    plain = StepEngine(TINY, CPU, weights)
    assert snr_db(stream(plain, noise(80)), stream(engine, noise(80))) >= 100


@pytest.mark.parametrize(
    ("block", "lookahead", "message"),
    [
        (noise(3)[0], noise(2), "block must be float32 of \\(batch, 2, frames ≥ 0, 1025, 2\\)"),
        (noise(3), noise(0), "lookahead must be .* frames ≥ 1"),
        (noise(3), noise(2).astype(np.float64), "lookahead must be float32 .* got float64"),
        (noise(3)[:, :1], noise(2), "block must be .* got float32 of \\(1, 1, 3, 1025, 2\\)"),
        (noise(3), noise(2, batch=2), "lookahead must be a batch of 1, .* got 2: reset"),
        (noise(3, batch=2), noise(2, batch=2), "block must be a batch of 1, .* got 2: reset"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_stream_goes_on(engine, block, lookahead, message):
    wanted = stream(engine, noise(7))
    engine.reset()
    found = [engine.step(noise(7)[:, :, :3], noise(7)[:, :, 3:5])[0]]
    with pytest.raises(AudioError, match=message):
        engine.step(block, lookahead)
    found += engine.step(noise(7)[:, :, 3:6], noise(7)[:, :, 6:])
    np.testing.assert_array_equal(np.concatenate(found, 3), wanted)


def test_a_graph_of_the_other_kind_is_refused_with_its_mend(weights):
    with pytest.raises(ModelError, match="export it with --streaming"):
        StepEngine(GRAPHS["tiny"], CPU, weights)
    with pytest.raises(ModelError, match="export it without --streaming"):
        OrtEngine(TINY, CPU, weights)


def test_states_that_the_graph_does_not_have_are_refused(weights):
    manifest = TINY.manifest.replace(states=(State("memory", (25, 3)),))
    with pytest.raises(ModelError, match="the inputs that its manifest lists .*memory"):
        StepEngine(replace(TINY, manifest=manifest), CPU, weights)


def test_streams_of_one_model_share_its_session_and_not_its_states(engine):
    one, other = engine.another(), engine.another()
    wanted = stream(engine, noise(12))
    steps = Schedule(3, 2).steps(12)
    found = [[], []]
    for part in steps:
        for twin, kept in zip((one, other), found, strict=True):
            kept.append(twin.step(noise(12)[:, :, part.block], noise(12)[:, :, part.lookahead]))
    for kept in found:
        blocks = [block for block, _ in kept] + [kept[-1][1]]
        np.testing.assert_array_equal(np.concatenate(blocks, 3), wanted)


def test_a_streaming_model_runs_whole_chunks_as_the_other_graph_does(engine, weights):
    chunk = np.random.default_rng(0).uniform(-1, 1, (2, 9000)).astype(np.float32)
    wanted = OrtEngine(GRAPHS["tiny"], CPU, weights).run(chunk)
    assert snr_db(wanted, StepsAsEngine(engine).run(chunk)) >= 100


def test_whole_chunks_leave_a_stream_alone(engine):
    wanted = stream(engine, noise(7))
    engine.reset()
    found = [engine.step(noise(7)[:, :, :3], noise(7)[:, :, 3:5])[0]]
    engine.whole(noise(4, seed=1))
    found += engine.step(noise(7)[:, :, 3:6], noise(7)[:, :, 6:])
    np.testing.assert_array_equal(np.concatenate(found, 3), wanted)


def test_a_checkpoint_streams_at_any_rate_with_a_lookahead(weights, tmp_path):
    save_file(weights, tmp_path / "voice.safetensors")
    separator = Separator(tmp_path / "voice.safetensors", device="cpu")
    streams = [separator.stream(48000, lookahead_ms=100) for _ in range(2)]
    assert streams[0].latency_samples < 0.4 * 48000
    audio = np.random.default_rng(0).uniform(-1, 1, (2, 30000)).astype(np.float32)
    once = [*streams[0].push(audio).values()], [*streams[0].flush().values()]
    parts = [[*streams[1].push(part).values()] for part in np.split(audio, [1, 999, 20000], 1)]
    parts.append([*streams[1].flush().values()])
    np.testing.assert_array_equal(np.concatenate(parts, -1), np.concatenate(once, -1))
    np.testing.assert_allclose(np.concatenate(once, -1).sum(axis=0), audio, rtol=0, atol=1e-6)
