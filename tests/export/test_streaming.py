"""The streaming graph against a plain loop over the same grid, in float64 by the recurrence."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bsmamba2 import DeviceError, ModelError
from bsmamba2.audio.schedule import Schedule
from bsmamba2.audio.snr import snr_db
from bsmamba2.cli import main
from bsmamba2.engines.step_engine import StepEngine, SteppedEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import CHECK_STEPS, reproduce
from bsmamba2.models.model import open_engine, open_step_engine
from bsmamba2_export import artifact, export, verify
from bsmamba2_network import BSMamba2, model
from bsmamba2_network.scan import recurrence, scan
from support.streams import network_step, run_steps

FORMS = [(target, kernel) for target in ("portable", "ort") for kernel in ("on", "off")]


@pytest.fixture(scope="module")
def engines(exported):
    """The tiny network's steps: each target, with the kernel where there is one, and without."""
    found = {}
    for target, kernel in FORMS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BSMAMBA2_KERNEL", kernel)
            found[target, kernel] = open_step_engine(exported(target, streaming=True), "cpu")
    return found


@pytest.fixture(scope="module")
def exact():
    return BSMamba2.untrained("tiny").double().requires_grad_(False)


def noise(frames, batch=1, seed=0):
    shape = batch, 2, frames, 1025, 2
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def loop(net, spectrum, schedule):
    """The network in float64, its scans by the plain recurrence."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "mamba2_scan", partial(scan, state_space=recurrence))
        parts = run_steps(network_step(net), torch.from_numpy(spectrum).double(), schedule)
    return torch.cat(parts, dim=3).numpy()


def stream(engine, spectrum, schedule):
    engine.reset()
    return np.concatenate(run_steps(engine.step, spectrum, schedule), axis=3)


@settings(max_examples=8)
@given(
    block=st.integers(1, 7),
    lookahead=st.integers(1, 6),
    frames=st.integers(1, 12),
    batch=st.integers(1, 2),
)
@example(block=1, lookahead=1, frames=4, batch=1)
@example(block=1, lookahead=1, frames=1, batch=1)
@example(block=66, lookahead=5, frames=73, batch=1)
@example(block=2, lookahead=65, frames=69, batch=1)
def test_every_schedule_is_the_plain_loop(engines, exact, block, lookahead, frames, batch):
    spectrum, schedule = noise(frames, batch, seed=frames), Schedule(block, lookahead)
    wanted = loop(exact, spectrum, schedule)
    for engine in engines.values():
        assert snr_db(wanted, stream(engine, spectrum, schedule)) >= 100


def test_a_lookahead_that_covers_the_rest_makes_the_whole(engines, tiny):
    spectrum = noise(12)
    with torch.inference_mode():
        whole = tiny.separate_spectrum(torch.from_numpy(spectrum)).numpy()
    for engine in engines.values():
        engine.reset()
        found = [engine.step(spectrum[:, :, :5], spectrum[:, :, 5:])[0]]
        found += engine.step(spectrum[:, :, 5:11], spectrum[:, :, 11:])
        np.testing.assert_allclose(np.concatenate(found, 3), whole, atol=1e-5)


def test_the_kernel_and_plain_operators_agree_to_100_db(engines):
    one, other = (
        stream(engines["portable", kernel], noise(70), Schedule(9, 4)) for kernel in ("on", "off")
    )
    assert snr_db(other, one) >= 100


def test_one_checkpoint_pours_into_both_graphs(checkpoint, exported):
    spectrum, schedule = noise(9), Schedule(4, 3)
    poured, whole = (
        stream(open_step_engine(path, "cpu"), spectrum, schedule)
        for path in (checkpoint, exported(streaming=True))
    )
    np.testing.assert_array_equal(poured, whole)
    at_once = open_engine(checkpoint, "cpu").run_spectrum(spectrum[:, :, :7])
    assert snr_db(at_once[:, :, :, :4], poured[:, :, :, :4]) >= 100


def test_both_graphs_have_the_same_weights_under_the_same_names(exported, tiny):
    def weights(streaming):
        graph = onnx.load(exported(streaming=streaming)).graph
        found = {value.name: value for value in graph.initializer}
        return {name: found[name].raw_data for name in tiny.state_dict()}

    assert weights(False) == weights(True)


def test_only_scans_whose_states_are_read_make_them(exported, tiny):
    graph = onnx.load(exported(streaming=True)).graph
    nodes = [(n.op_type, n.overload, len(n.output)) for n in graph.node if n.domain == "bsmamba2"]
    depth = tiny.config.depth
    assert nodes.count(("mamba2_scan", "states", 3)) == depth
    assert nodes.count(("mamba2_mixer", "", 1)) == len(nodes) - depth == 4 * depth


def test_targets_differ_in_the_scans_body_alone(exported):
    one, other = (onnx.load(exported(t, streaming=True)) for t in ("portable", "ort"))
    assert one.graph.SerializeToString() == other.graph.SerializeToString()


def test_steps_of_another_network_are_refused(engines):
    with pytest.raises(ModelError, match="does not agree with the network"):
        verify.verify_steps(engines["portable", "on"], BSMamba2.untrained("tiny", seed=1))


def test_the_check_of_a_stream_is_reproduced_only_if_the_states_are_kept(exported, monkeypatch):
    steps = open_step_engine(exported(streaming=True), "cpu")
    assert reproduce(SteppedEngine(steps, CHECK_STEPS)) >= 60
    step = StepEngine.step
    monkeypatch.setattr(StepEngine, "step", lambda self, *two: (self.reset(), step(self, *two))[1])
    with pytest.raises(DeviceError, match="does not reproduce its check: SNR"):
        reproduce(SteppedEngine(steps, CHECK_STEPS))


@pytest.mark.parametrize("load", [open_engine, open_step_engine])
def test_a_streaming_model_must_reproduce_its_check_at_first_use(exported, tmp_path, load):
    model = onnx.load(exported(streaming=True))
    manifest = read_onnx(exported(streaming=True)).manifest
    wrong = replace(manifest.check, expected=-manifest.check.expected)
    artifact.set_manifest(model, manifest.replace(check=wrong))
    artifact.write(model, tmp_path / "voice.onnx")
    with pytest.raises(DeviceError, match="does not reproduce its check: SNR"):
        load(tmp_path / "voice.onnx", "cpu")


def test_a_streaming_graph_of_waveforms_is_refused(checkpoint, tmp_path):
    with pytest.raises(ModelError, match="io must be spectrum in a streaming graph"):
        export(checkpoint, tmp_path / "x.onnx", io="waveform", streaming=True)


def test_the_command_exports_steps_and_info_says_so(checkpoint, tmp_path):
    path = tmp_path / "voice.onnx"
    result = CliRunner().invoke(main, ["export", str(checkpoint), "-o", str(path), "--streaming"])
    assert (result.exit_code, result.stdout.count("SNR") >= 3) == (0, True)
    page = CliRunner().invoke(main, ["info", str(path), "--check", "--device", "cpu"]).stdout
    assert "steps of a stream" in page
    assert "dB, a stream" in page
