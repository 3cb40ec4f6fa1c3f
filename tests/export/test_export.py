"""An export agrees with the network and contains its description, or no file is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from bsmamba2 import DeviceError, ModelError
from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import CPU
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.formats.checkpoint import LICENCE_KEY
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models import registry
from bsmamba2.models.check import check_input, reproduce
from bsmamba2_export import export, trace, verify
from bsmamba2_export.exporter import ALIASES, describe, export_network
from bsmamba2_export.precision import MINIMUM_SNR_DB, with_half_weights
from bsmamba2_network import BSMamba2, Config
from support.commands import run_command
from support.models import open_engine

FORMS = [
    (target, io) for target in ("portable", "ort", "inlined") for io in ("spectrum", "waveform")
]


GPUS: dict[str, list[str]] = {"export": [], "build-engine": ["--gpu", "sm89"]}


@pytest.mark.parametrize(("target", "io"), FORMS)
def test_every_form_records_that_it_agrees_with_the_network(
    exported: Callable[..., Path], target: str, io: str
) -> None:
    manifest = open_engine(exported(target, io), "cpu").manifest
    assert (manifest.target, manifest.io) == (target, io)
    assert min(manifest.verification.values()) >= 90


@pytest.fixture(scope="module")
def expected(net: BSMamba2) -> list[tuple[Audio, Audio]]:
    """Audio of several lengths, and the network's stems for each."""
    inputs = [check_input(3, 2, samples) for samples in (1, 700, 1025, 30_000)]
    with torch.inference_mode():
        return [(audio, net(torch.from_numpy(audio)[None])[0].numpy()) for audio in inputs]


@pytest.mark.parametrize(("target", "io"), FORMS)
@pytest.mark.parametrize("kernel", [False, True])
def test_every_length_agrees_with_the_network(
    exported: Callable[..., Path],
    expected: list[tuple[Audio, Audio]],
    target: str,
    io: str,
    kernel: bool,
) -> None:
    engine = OrtEngine(read_onnx(exported(target, io)), CPU, kernel=kernel)
    for audio, stems in expected:
        assert snr_db(stems, engine.run(audio)) >= 90, audio.shape


def test_a_graph_has_one_node_per_mixer_and_the_checkpoints_names(
    exported: Callable[..., Path], net: BSMamba2
) -> None:
    model = onnx.load(exported())
    ours = [node.op_type for node in model.graph.node if node.domain == "bsmamba2"]
    assert ours == ["mamba2_mixer"] * 4 * net.config.depth
    shapes = {value.name: tuple(value.dims) for value in model.graph.initializer}
    assert all(shapes[key] == tuple(v.shape) for key, v in net.state_dict().items())


def test_networks_of_one_size_share_a_trace_but_not_weights(
    net: BSMamba2, another_net: BSMamba2
) -> None:
    for one in (net, another_net, net):
        values = {v.name: v for v in trace.trace_nodes(one).graph.initializer}
        for name, weight in one.state_dict().items():
            np.testing.assert_array_equal(onnx.numpy_helper.to_array(values[name]), weight)


def test_targets_differ_only_in_the_scans_body(exported: Callable[..., Path]) -> None:
    one, other = onnx.load(exported("portable")), onnx.load(exported("ort"))
    assert one.graph.SerializeToString() == other.graph.SerializeToString()
    assert [f.name for f in one.functions] == [f.name for f in other.functions]
    assert one.functions[:3] == other.functions[:3]


@pytest.mark.parametrize("io", ["spectrum", "waveform"])
def test_an_inlined_model_has_only_standard_operators_and_is_complete(
    exported: Callable[..., Path], io: str
) -> None:
    model, manifest = (
        onnx.load(exported("inlined", io)),
        read_onnx(exported("inlined", io)).manifest,
    )
    assert not model.functions
    assert {entry.domain for entry in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert reproduce(open_engine(exported("inlined", io), "cpu")) >= 60
    assert manifest.verification.keys() == {"audio", "short_audio", "spectrum"} - (
        {"spectrum"} if io == "waveform" else set()
    )


@pytest.mark.parametrize("name", sorted(ALIASES))
def test_the_name_of_an_engine_is_a_target_too(net: BSMamba2, name: str) -> None:
    assert describe(net, "voice", target=name).target == ALIASES[name]
    assert name in run_command("export", "--help").stdout


@pytest.mark.parametrize("weights", ["fp32", "fp16"])
def test_an_export_of_weights_that_were_stored_in_half_precision_agrees_exactly(
    net: BSMamba2, tmp_path: Path, weights: str
) -> None:
    path, output = tmp_path / "voice.safetensors", tmp_path / "voice.onnx"
    half = with_half_weights(net)
    assert isinstance(half, BSMamba2)
    half.save(path)
    result = run_command("export", path, "-o", output, "--weights", weights)
    assert (result.exit_code, result.stderr) == (0, "")
    assert ("stored_weights: SNR against the network: exact agreement" in result.stdout) == (
        weights == "fp16"
    )
    assert all(np.isfinite(value) for value in read_onnx(output).manifest.verification.values())


def test_a_name_is_exported_like_a_file_with_its_licence(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "weights" / "voice.safetensors"
    small.parent.mkdir()
    with safe_open(checkpoint, "numpy") as file:
        sizes = file.metadata()
    save_file(load_file(checkpoint), small, sizes | {LICENCE_KEY: "a licence in one line"})
    monkeypatch.setattr(registry, "shipped", lambda: {"voice": small})
    for model, output in (("voice", "by_name.onnx"), (small, "by_path.onnx")):
        assert run_command("export", model, "-o", tmp_path / output).exit_code == 0
        manifest = read_onnx(tmp_path / output).manifest
        assert (manifest.name, manifest.licence) == ("voice", "a licence in one line")
    by_name, by_path = (tmp_path / f"by_{kind}.onnx" for kind in ("name", "path"))
    assert by_name.read_bytes() == by_path.read_bytes()


@pytest.mark.parametrize("command", ["export", "build-engine"])
def test_a_misspelt_name_is_corrected_before_any_work(command: str, tmp_path: Path) -> None:
    suffix = ".onnx" if command == "export" else ".engine"
    result = run_command(command, "smal", "-o", tmp_path / f"x{suffix}", *GPUS[command])
    assert (result.exit_code, result.stderr) == (
        2,
        "bsmamba2: there is no model called 'smal': did you mean small?\n",
    )


def test_an_export_is_not_exported_again(exported: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="which was exported from one: give that checkpoint"):
        export(exported(), tmp_path / "x.onnx")


def test_the_check_vector_is_reproduced_and_a_damaged_one_is_not(
    exported: Callable[..., Path],
) -> None:
    engine = open_engine(exported(), "cpu")
    assert reproduce(engine) >= 60
    assert engine.manifest.check is not None
    engine.manifest.check.expected[...] += 0.1
    with pytest.raises(DeviceError, match="does not reproduce its check"):
        reproduce(engine)


def test_a_graph_that_computes_something_else_is_deleted(
    net: BSMamba2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong_trace(net: BSMamba2, *form: Any, **options: Any) -> onnx.ModelProto:
        model = trace.trace_nodes(net, *form, **options)
        values = {value.name: value for value in model.graph.initializer}
        gamma = onnx.numpy_helper.to_array(values["final_norm.gamma"])
        values["final_norm.gamma"].CopyFrom(
            onnx.numpy_helper.from_array(gamma * np.float32(1.001), "final_norm.gamma")
        )
        return model

    monkeypatch.setattr("bsmamba2_export.exporter.trace_nodes", wrong_trace)
    with pytest.raises(ModelError, match="must agree with the network to 90 dB"):
        export_network(net, describe(net, "wrong"), tmp_path / "wrong.onnx")
    assert not list(tmp_path.iterdir())


def test_a_wrong_body_is_detected_even_if_a_kernel_replaces_it(
    net: BSMamba2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong_body(*args: Any, **kwargs: Any) -> onnx.ModelProto:
        model = trace.finish(*args, **kwargs)
        for function in model.functions:
            for node in function.node:
                node.op_type = "Relu" if node.op_type == "Softplus" else node.op_type
        return model

    monkeypatch.setattr("bsmamba2_export.exporter.finish", wrong_body)
    with pytest.raises(ModelError, match="must agree with the network to 90 dB"):
        export_network(net, describe(net, "wrong"), tmp_path / "wrong.onnx")


def test_an_existing_file_is_not_replaced_without_overwrite(
    exported: Callable[..., Path], checkpoint: Path
) -> None:
    with pytest.raises(ModelError, match=r"output must be a new file.*allow overwriting"):
        export(checkpoint, exported())


def test_float32_must_agree_to_90_db() -> None:
    minimum_db = MINIMUM_SNR_DB["fp32"]
    verify.require({"audio": 90.0}, minimum_db)
    for value in (89.9, float("nan"), -float("inf")):
        with pytest.raises(ModelError):
            verify.require({"audio": value, "spectrum": 120.0}, minimum_db)


def test_the_error_for_a_size_without_a_shipped_graph_says_to_export(tmp_path: Path) -> None:
    BSMamba2(Config(dim=16, depth=1, state_size=16)).save(tmp_path / "odd.safetensors")
    with pytest.raises(ModelError, match="without a shipped graph .*bsmamba2 export"):
        open_engine(tmp_path / "odd.safetensors", "cpu")


def test_a_shipped_graph_runs_checkpoints_with_other_stems_hop_and_chunk(
    tmp_path: Path,
) -> None:
    config = replace(Config.preset("tiny"), stems=("drums",), hop=512, chunk=88200)
    BSMamba2(config).save(tmp_path / "drums.safetensors")
    manifest = open_engine(tmp_path / "drums.safetensors", "cpu").manifest
    assert (manifest.outputs, manifest.hop, manifest.chunk) == (("drums", "residual"), 512, 88200)


@pytest.mark.parametrize(
    ("output", "message"),
    [("x.pt", "must end in .onnx"), ("no/x.onnx", "in an existing folder")],
)
def test_an_invalid_output_path_is_refused(
    checkpoint: Path, tmp_path: Path, output: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        export(checkpoint, tmp_path / output)


def test_info_reads_what_the_command_exports(
    checkpoint: Path, net: BSMamba2, tmp_path: Path
) -> None:
    path = tmp_path / "voice.onnx"
    result = run_command("export", checkpoint, "-o", path)
    assert (result.exit_code, result.stdout.count("SNR") >= 3) == (0, True)
    page = run_command("info", path, "--check", "--device", "cpu").stdout
    assert f"parameters  {sum(v.numel() for v in net.parameters()):,}" in page
    assert "reproduced on cpu" in page


def test_a_model_is_exported_by_its_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))
    arguments = ["export", "bs_mamba2_vocals", "-o", str(tmp_path / "voice.onnx")]
    result = run_command(*arguments)
    assert (result.exit_code, "run bsmamba2 models fetch bs_mamba2_vocals" in result.stderr) == (
        2,
        True,
    )
    wrong = run_command(*arguments, "--catalogue", str(tmp_path / "x.json"))
    assert (wrong.exit_code, "x.json is not a file" in wrong.stderr) == (2, True)
