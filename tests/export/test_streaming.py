"""Compares the streaming graph with a plain loop over the same steps, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bsmamba2 import DeviceError, ModelError
from bsmamba2.audio.array import Audio
from bsmamba2.audio.schedule import Schedule
from bsmamba2.audio.snr import snr_db
from bsmamba2.cli import main
from bsmamba2.engines.step_engine import StepEngine, SteppedEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import CHECK_STEPS, reproduce
from bsmamba2_export import artifact, export, verify
from bsmamba2_network import BSMamba2, model
from bsmamba2_network.scan import recurrence, scan
from support.models import open_engine, open_step_engine
from support.streams import network_step, run_steps

Engines = dict[tuple[str, str], StepEngine]

FORMS = [(target, kernel) for target in ("portable", "ort") for kernel in ("on", "off")]


@pytest.fixture(scope="module")
def engines(exported: Callable[..., Path]) -> Engines:
    """The network's step engines for each target, with and without the kernel."""
    opened = {}
    for target, kernel in FORMS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BSMAMBA2_KERNEL", kernel)
            opened[target, kernel] = open_step_engine(exported(target, streaming=True), "cpu")
    return opened


@pytest.fixture(scope="module")
def exact(net: BSMamba2) -> BSMamba2:
    return copy.deepcopy(net).double().requires_grad_(False)


def noise(frames: int, batch: int = 1, seed: int = 0) -> Audio:
    shape = batch, 2, frames, 1025, 2
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def loop(net: BSMamba2, spectrum: Audio, schedule: Schedule) -> Audio:
    """Runs the network's steps in float64 with the plain recurrence."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "mamba2_scan", partial(scan, state_space=recurrence))
        parts = run_steps(network_step(net), torch.from_numpy(spectrum).double(), schedule)
    stems: Audio = torch.cat(parts, dim=3).numpy()
    return stems


def stream(engine: StepEngine, spectrum: Audio, schedule: Schedule) -> Audio:
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
def test_every_schedule_agrees_with_the_plain_loop_to_100_db(
    engines: Engines, exact: BSMamba2, block: int, lookahead: int, frames: int, batch: int
) -> None:
    spectrum, schedule = noise(frames, batch, seed=frames), Schedule(block, lookahead)
    expected = loop(exact, spectrum, schedule)
    for engine in engines.values():
        assert snr_db(expected, stream(engine, spectrum, schedule)) >= 100


def test_steps_that_look_ahead_to_the_end_equal_the_whole(engines: Engines, net: BSMamba2) -> None:
    spectrum = noise(12)
    with torch.inference_mode():
        whole = net.separate_spectrum(torch.from_numpy(spectrum)).numpy()
    for engine in engines.values():
        engine.reset()
        parts = [engine.step(spectrum[:, :, :5], spectrum[:, :, 5:])[0]]
        parts += engine.step(spectrum[:, :, 5:11], spectrum[:, :, 11:])
        np.testing.assert_allclose(np.concatenate(parts, 3), whole, atol=1e-5)


def test_the_kernel_and_plain_operators_agree_to_100_db(engines: Engines) -> None:
    one, other = (
        stream(engines["portable", kernel], noise(70), Schedule(9, 4)) for kernel in ("on", "off")
    )
    assert snr_db(other, one) >= 100


def test_both_graphs_have_the_same_weights_under_the_same_names(
    exported: Callable[..., Path], net: BSMamba2
) -> None:
    def weights(streaming: bool) -> dict[str, bytes]:
        graph = onnx.load(exported(streaming=streaming)).graph
        values = {value.name: value for value in graph.initializer}
        return {name: values[name].raw_data for name in net.state_dict()}

    assert weights(False) == weights(True)


def test_only_scans_whose_states_are_used_output_them(
    exported: Callable[..., Path], net: BSMamba2
) -> None:
    graph = onnx.load(exported(streaming=True)).graph
    nodes = [(n.op_type, n.overload, len(n.output)) for n in graph.node if n.domain == "bsmamba2"]
    depth = net.config.depth
    assert nodes.count(("mamba2_scan", "states", 3)) == depth
    assert nodes.count(("mamba2_mixer", "", 1)) == len(nodes) - depth == 4 * depth


def test_targets_differ_only_in_the_scans_body(exported: Callable[..., Path]) -> None:
    one, other = (onnx.load(exported(t, streaming=True)) for t in ("portable", "ort"))
    assert one.graph.SerializeToString() == other.graph.SerializeToString()


def test_verification_fails_for_another_network(engines: Engines, another_net: BSMamba2) -> None:
    with pytest.raises(ModelError, match="must agree with the network to 90 dB"):
        verify.verify_steps(engines["portable", "on"], another_net)


def test_a_streams_check_is_reproduced_only_if_the_states_are_kept(
    exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = open_step_engine(exported(streaming=True), "cpu")
    assert reproduce(SteppedEngine(steps, CHECK_STEPS)) >= 60
    step = StepEngine.step

    def step_after_reset(engine: StepEngine, block: Audio, lookahead: Audio) -> tuple[Audio, Audio]:
        engine.reset()
        return step(engine, block, lookahead)

    monkeypatch.setattr(StepEngine, "step", step_after_reset)
    with pytest.raises(DeviceError, match="does not reproduce its check: the SNR"):
        reproduce(SteppedEngine(steps, CHECK_STEPS))


@pytest.mark.parametrize("load", [open_engine, open_step_engine])
def test_a_streaming_model_must_reproduce_its_check_at_first_use(
    exported: Callable[..., Path], tmp_path: Path, load: Callable[[Path, str], Any]
) -> None:
    model = onnx.load(exported(streaming=True))
    manifest = read_onnx(exported(streaming=True)).manifest
    assert manifest.check is not None
    wrong = replace(manifest.check, expected=-manifest.check.expected)
    artifact.set_manifest(model, manifest.replace(check=wrong))
    artifact.write(model, tmp_path / "voice.onnx")
    with pytest.raises(DeviceError, match="does not reproduce its check: the SNR"):
        load(tmp_path / "voice.onnx", "cpu")


def test_a_streaming_graph_cannot_have_waveforms(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="io must be spectrum in a streaming graph"):
        export(checkpoint, tmp_path / "x.onnx", io="waveform", streaming=True)


def test_info_recognises_an_exported_streaming_model(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "voice.onnx"
    result = CliRunner().invoke(main, ["export", str(checkpoint), "-o", str(path), "--streaming"])
    assert (result.exit_code, result.stdout.count("SNR") >= 3) == (0, True)
    page = CliRunner().invoke(main, ["info", str(path), "--check", "--device", "cpu"]).stdout
    assert "steps of a stream" in page
    assert "dB, a stream" in page
