"""Lower precisions: which values are narrow, which stay float32, and which exports fail."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto

from bsmamba2 import DeviceError, Manifest, ModelError, cli
from bsmamba2.engines.float32_twin import widened
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2_export import export
from bsmamba2_export.exporter import describe
from bsmamba2_export.precision import sdr_cost_db, with_half_weights
from bsmamba2_export.trace import finish, trace_nodes
from bsmamba2_export.verify import agreement_db, require
from bsmamba2_network import BSMamba2
from support.models import open_engine

Export = Callable[..., tuple[Path, Manifest]]

KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.fixture(scope="module")
def narrow(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Exports the network in a form, once; returns the path and the manifest."""
    folder = tmp_path_factory.mktemp("narrow")
    exports: dict[str, tuple[Path, Manifest]] = {}

    def export_once(**form: Any) -> tuple[Path, Manifest]:
        name = "-".join(f"{key}-{value}" for key, value in form.items())
        if name not in exports:
            path = folder / f"{name}.onnx"
            exports[name] = path, export(checkpoint, path, **form)
        return exports[name]

    return export_once


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_products_are_narrow_and_everything_else_is_float32(narrow: Export, precision: str) -> None:
    graph = onnx.load(narrow(precision=precision, io="spectrum")[0]).graph
    kinds = {value.name: value.data_type for value in graph.initializer}
    mixer = "layers.0.0.forward_blocks.0.mixer."
    assert kinds[f"{mixer}in_proj.weight"] == kinds[f"{mixer}out_proj.weight"] == KINDS[precision]
    exact = ("A_log", "dt_bias", "D", "norm.weight", "conv1d.weight")
    assert {kinds[mixer + name] for name in exact} == {TensorProto.FLOAT}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_nothing_is_widened_between_the_projections(narrow: Export, precision: str) -> None:
    graph = onnx.load(narrow(precision=precision, io="spectrum")[0]).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    scans = [node for node in graph.node if node.op_type == "mamba2_scan"]
    readers = [n.op_type for n in graph.node for s in scans if s.output[0] in n.input]
    assert {makers[scan.input[0]] for scan in scans} == set(readers) == {"MatMul"}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_form_for_gpus_stays_narrow_from_norm_to_norm(narrow: Export, precision: str) -> None:
    graph = onnx.load(narrow(precision=precision)[0]).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    scans = [node for node in graph.node if node.op_type == "mamba2_scan"]
    norms = [node for node in graph.node if node.op_type == "residual_norm"]
    assert (len(scans), len(norms)) == (8, 4)
    read = [name for node in scans for name in node.input[:1]]
    read += [name for node in norms for name in node.input[1:4]]
    assert {makers[name] for name in read} == {"Reshape", "MatMul"}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_form_for_gpus_rounds_weights_once(narrow: Export, precision: str) -> None:
    graph = onnx.load(narrow(precision=precision)[0]).graph
    assert KINDS[precision] not in {value.data_type for value in graph.initializer}
    casts = [n for n in graph.node if n.op_type == "Cast" and n.attribute[0].i == KINDS[precision]]
    assert len({node.input[0] for node in casts}) == len(casts) > 0


@pytest.mark.parametrize(("precision", "least"), [("fp16", 45), ("bf16", 35)])
def test_the_manifest_has_the_snr_of_the_precision(
    narrow: Export, precision: str, least: float
) -> None:
    manifest = narrow(precision=precision)[1]
    snr = manifest.verification
    assert (manifest.precision, manifest.weights) == (precision, "fp32")
    assert least <= snr["audio"] <= snr["audio_kernel"] + 1 <= 80


def test_half_weights_halve_the_file_and_compute_in_float32(
    narrow: Export, exported: Callable[..., Path], net: BSMamba2
) -> None:
    path, manifest = narrow(weights="fp16")
    assert path.stat().st_size < 0.6 * exported().stat().st_size
    assert manifest.verification["audio"] >= 90 > manifest.verification["stored_weights"]
    stored = with_half_weights(net).state_dict()
    assert torch.equal(stored["final_norm.gamma"], net.state_dict()["final_norm.gamma"])


def test_the_error_for_bf16_on_a_cpu_says_what_to_do(narrow: Export) -> None:
    with pytest.raises(DeviceError, match="ONNX Runtime cannot do on a CPU: use a GPU, or export"):
        open_engine(narrow(precision="bf16")[0], "cpu")


@pytest.mark.parametrize(
    ("precision", "streaming", "io"),
    [
        ("fp32", False, "spectrum"),
        ("fp16", False, "waveform"),
        ("bf16", False, "waveform"),
        ("bf16", True, "spectrum"),
    ],
)
def test_a_model_for_gpus_takes_audio(
    net: BSMamba2, precision: str, streaming: bool, io: str
) -> None:
    assert describe(net, "voice", precision=precision, streaming=streaming).io == io


def test_the_error_for_a_weight_beyond_float16_names_it(net: BSMamba2) -> None:
    half = with_half_weights(net)
    with torch.no_grad():
        half.state_dict()["layers.0.0.forward_blocks.0.mixer.in_proj.weight"][0, 0] = 1e5
    message = "weights must be within ±65504 in fp16; got 1e[+]05 in .*mixer.in_proj.weight"
    with pytest.raises(ModelError, match=message):
        finish(trace_nodes(half), half, precision="fp16")


def test_weights_cannot_be_combined_with_a_lower_precision(
    checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="weights must be left out with precision fp16"):
        export(checkpoint, tmp_path / "x.onnx", precision="fp16", weights="fp32")


def test_the_command_reports_that_a_precision_costs_quality(net: BSMamba2, tmp_path: Path) -> None:
    steep = copy.deepcopy(net)
    with torch.no_grad():
        for name, weight in steep.mask_estimators.named_parameters():
            if name.endswith("0.2.weight"):
                weight.mul_(5000)  # rounding then opens or closes gates
    steep.save(tmp_path / "x.safetensors")
    words = ["export", tmp_path / "x.safetensors", "-o", tmp_path / "x.onnx", "--precision", "bf16"]
    result = CliRunner().invoke(cli.main, [str(word) for word in words])
    assert (result.exit_code, "estimated cost of this precision" in result.output) == (0, True)


def test_the_error_for_a_weight_that_is_not_finite_names_it(net: BSMamba2, tmp_path: Path) -> None:
    damaged = copy.deepcopy(net)
    with torch.no_grad():
        damaged.state_dict()["layers.0.0.forward_blocks.0.mixer.A_log"][0] = torch.nan
    damaged.save(tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"mixer.A_log is not finite: download it again"):
        export(tmp_path / "x.safetensors", tmp_path / "x.onnx")


def test_near_silent_stems_are_compared_relative_to_the_mixture() -> None:
    mixture = np.ones((2, 100), np.float32)
    stem, factor = mixture * 2**-13, 1 + 2**-10  # exact in float32
    error_db = 20 * math.log10(2**10)
    below_minimum_db = 10 * math.log10(1e-3 * 2**26)
    assert agreement_db(mixture, stem, stem * factor) == pytest.approx(error_db + below_minimum_db)
    assert agreement_db(mixture, mixture, mixture * factor) == pytest.approx(error_db)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_whose_output_is_not_finite_is_verified_by_no_export(value: float) -> None:
    mixture = np.ones((2, 9), np.float32)
    expected = np.full((1, 2, 9), value, np.float32)
    for actual in (expected, np.zeros_like(expected)):
        with np.errstate(all="ignore"):
            found_db = agreement_db(mixture, expected, actual)
        with pytest.raises(ModelError, match="must agree with the network"):
            require({"audio": found_db}, 20.0)


def test_an_error_as_large_as_the_models_own_costs_3_db() -> None:
    assert sdr_cost_db(11, 11) == pytest.approx(10 * math.log10(2))
    assert sdr_cost_db(45) < 0.01 < 0.1 < sdr_cost_db(25)


def test_a_narrow_step_of_a_stream_agrees_with_the_network(
    checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "steps.onnx"
    verification = export(checkpoint, path, precision="fp16", streaming=True).verification
    assert min(verification.values()) >= 45
    assert read_onnx(path).manifest.precision == "fp16"


@pytest.mark.parametrize(("precision", "digits"), [("fp16", 11), ("bf16", 8)])
def test_widened_weights_equal_the_checkpoints_up_to_rounding(
    narrow: Export, net: BSMamba2, precision: str, digits: int
) -> None:
    weights = widened(read_onnx(narrow(precision=precision)[0]))
    for name, tensor in net.state_dict().items():
        error = (tensor - torch.from_numpy(weights[name])).abs()
        assert (error <= tensor.abs() * 2.0**-digits + 1e-7).all()
