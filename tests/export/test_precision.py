"""Lower precisions: what is narrow, what stays float32, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto

from bsmamba2 import DeviceError, ModelError, cli
from bsmamba2.audio.snr import snr_db
from bsmamba2.engines.float32_twin import widened
from bsmamba2.engines.protocols import ReducedPrecisionEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import check_input
from bsmamba2.models.model import open_engine
from bsmamba2_export import export
from bsmamba2_export.precision import sdr_cost_db, with_half_weights
from bsmamba2_export.trace import finish, trace_scans
from bsmamba2_export.verify import agreement_db
from bsmamba2_network import BSMamba2

KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.fixture(scope="module")
def narrow(checkpoint, tmp_path_factory):
    """A tiny network in each form, with its manifest: exporting it compares it with the network."""
    folder, forms = tmp_path_factory.mktemp("narrow"), {}

    def make(**form):
        name = "-".join(f"{key}-{value}" for key, value in form.items())
        if name not in forms:
            path = folder / f"{name}.onnx"
            forms[name] = path, export(checkpoint, path, **form)
        return forms[name]

    return make


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_products_are_narrow_and_all_else_is_float32(narrow, precision):
    graph = onnx.load(narrow(precision=precision)[0]).graph
    kinds = {value.name: value.data_type for value in graph.initializer}
    mixer = "layers.0.0.forward_blocks.0.mixer."
    assert kinds[f"{mixer}in_proj.weight"] == kinds[f"{mixer}out_proj.weight"] == KINDS[precision]
    exact = ("A_log", "dt_bias", "D", "norm.weight", "conv1d.weight")
    assert {kinds[mixer + name] for name in exact} == {TensorProto.FLOAT}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_between_the_projections_nothing_is_widened(narrow, precision):
    graph = onnx.load(narrow(precision=precision)[0]).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    scans = [node for node in graph.node if node.op_type == "mamba2_scan"]
    readers = [n.op_type for n in graph.node for s in scans if s.output[0] in n.input]
    assert {makers[scan.input[0]] for scan in scans} == set(readers) == {"MatMul"}


@pytest.mark.parametrize(("precision", "least"), [("fp16", 45), ("bf16", 35)])
def test_the_manifest_says_how_near_the_digits_come(narrow, precision, least):
    manifest = narrow(precision=precision)[1]
    found = manifest.verification
    assert (manifest.precision, manifest.weights) == (precision, precision)
    assert least <= found["audio"] <= found["audio_kernel"] + 1 <= 80


def test_half_weights_halve_the_file_and_compute_in_float32(narrow, exported, tiny):
    path, manifest = narrow(weights="fp16")
    assert path.stat().st_size < 0.6 * exported().stat().st_size
    assert manifest.verification["audio"] >= 90 > manifest.verification["stored_weights"]
    stored = with_half_weights(tiny).state_dict()
    assert torch.equal(stored["final_norm.gamma"], tiny.state_dict()["final_norm.gamma"])


def test_bf16_on_a_cpu_is_refused_with_what_to_do(narrow):
    with pytest.raises(DeviceError, match="CPUs have no products for: use a GPU, or export"):
        open_engine(narrow(precision="bf16")[0], "cpu")


def test_a_weight_beyond_float16_is_refused_by_name(tiny):
    net = with_half_weights(tiny)
    with torch.no_grad():
        net.layers[0][0].forward_blocks[0].mixer.in_proj.weight[0, 0] = 1e5
    with pytest.raises(ModelError, match="mixer.in_proj.weight holds 1e[+]05, which is beyond fp1"):
        finish(trace_scans(net), net, precision="fp16")


def test_weights_beside_a_precision_are_refused(checkpoint, tmp_path):
    with pytest.raises(ModelError, match="weights must be left out with precision fp16"):
        export(checkpoint, tmp_path / "x.onnx", precision="fp16", weights="fp32")


def test_the_command_says_when_a_precision_costs_quality(tmp_path):
    net = BSMamba2.untrained("tiny")
    with torch.no_grad():
        for bands in net.mask_estimators[0].to_freqs:
            bands[0][2].weight.mul_(5000)  # gates that a rounding opens or closes
    net.save(tmp_path / "x.safetensors")
    asked = ["export", tmp_path / "x.safetensors", "-o", tmp_path / "x.onnx", "--precision", "bf16"]
    result = CliRunner().invoke(cli.main, [str(value) for value in asked])
    assert (result.exit_code, "by an estimate from noise this costs" in result.output) == (0, True)


def test_a_checkpoint_that_is_not_finite_is_refused_by_name(tmp_path):
    net = BSMamba2.untrained("tiny")
    with torch.no_grad():
        net.layers[0][0].forward_blocks[0].mixer.A_log[0] = torch.nan
    net.save(tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"mixer.A_log that is not finite: get it again"):
        export(tmp_path / "x.safetensors", tmp_path / "x.onnx")


def test_stems_that_are_all_but_silent_are_judged_by_the_mixture():
    mixture, stem = np.ones((2, 100)), np.full((2, 100), 1e-4)
    assert agreement_db(mixture, stem, stem * (1 + 1e-3)) == pytest.approx(60 + 50)
    assert agreement_db(mixture, mixture, mixture * (1 + 1e-3)) == pytest.approx(60)


def test_an_error_as_large_as_the_models_own_costs_three_decibels():
    assert sdr_cost_db(11, 11) == pytest.approx(10 * math.log10(2))
    assert sdr_cost_db(45) < 0.01 < 0.1 < sdr_cost_db(25)


def test_a_narrow_step_of_a_stream_agrees_too(checkpoint, tmp_path):
    path = tmp_path / "steps.onnx"
    found = export(checkpoint, path, precision="fp16", streaming=True).verification
    assert min(found.values()) >= 45
    assert read_onnx(path).manifest.precision == "fp16"


def test_a_narrow_model_has_a_twin_in_float32_for_what_overflows(narrow, checkpoint):
    engine, noise = open_engine(narrow(precision="fp16")[0], "cpu"), check_input(0, 2, 9000)
    assert isinstance(engine, ReducedPrecisionEngine)
    assert engine.in_float32() is engine.in_float32()
    assert not isinstance(engine.in_float32(), ReducedPrecisionEngine)
    wanted = open_engine(checkpoint, "cpu").run(noise)
    assert snr_db(wanted, engine.in_float32().run(noise)) > 50


@pytest.mark.parametrize(("precision", "digits"), [("fp16", 11), ("bf16", 8)])
def test_widened_weights_are_the_checkpoint_s_but_for_rounding(narrow, tiny, precision, digits):
    weights = widened(read_onnx(narrow(precision=precision)[0]))
    for name, tensor in tiny.state_dict().items():
        error = (tensor - torch.from_numpy(weights[name])).abs()
        assert (error <= tensor.abs() * 2.0**-digits + 1e-7).all()
