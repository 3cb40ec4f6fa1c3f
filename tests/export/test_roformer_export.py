"""RoFormers export like BSMamba2: verified, of any length, for every target and precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from bsmamba2 import ModelError
from bsmamba2.audio.snr import snr_db
from bsmamba2.cli import main
from bsmamba2.devices.device import CPU
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.formats.checkpoint import read_checkpoint
from bsmamba2.formats.model_settings import ModelSettings
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import check_input
from bsmamba2_export import exporter
from bsmamba2_export.engine_builder import build_engine
from bsmamba2_export.exporter import describe, export_network
from bsmamba2_export.trace import trace
from bsmamba2_network import RoFormer, RoFormerConfig, families
from support.small_roformers import BS_SMALL, MEL_SMALL, small_roformer

CONFIGS = {config.family: config for config in (BS_SMALL, MEL_SMALL)}
Exported = Callable[..., Path]


@pytest.fixture(scope="module", params=list(CONFIGS.values()), ids=list(CONFIGS))
def net(request: pytest.FixtureRequest) -> RoFormer:
    config: RoFormerConfig = request.param
    return small_roformer(config)


@pytest.fixture(scope="module")
def exported(net: RoFormer, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """``exported(target, io, precision)`` returns the path of the verified model."""
    folder = tmp_path_factory.mktemp("exported")

    def path_of(target: str = "portable", io: str = "spectrum", precision: str = "fp32") -> Path:
        path = folder / f"{target}-{io}-{precision}.onnx"
        if not path.exists():
            manifest = describe(net, "small", target=target, io=io, precision=precision)
            export_network(net, manifest, path)
        return path

    return path_of


@pytest.mark.parametrize(
    "form",
    [
        ("portable", "spectrum", "fp32"),
        pytest.param(("ort", "spectrum", "fp32"), marks=pytest.mark.slow),
        ("ort", "waveform", "fp32"),
        pytest.param(("tensorrt", "spectrum", "fp32"), marks=pytest.mark.slow),
        ("portable", "spectrum", "fp16"),
        ("ort", "spectrum", "bf16"),
        pytest.param(("tensorrt", "spectrum", "bf16"), marks=pytest.mark.slow),
    ],
)
def test_every_form_records_that_it_agrees_with_the_network(
    exported: Exported, net: RoFormer, form: tuple[str, str, str]
) -> None:
    manifest = read_onnx(exported(*form)).manifest
    assert (manifest.target, manifest.io, manifest.precision) == form
    assert (manifest.family, manifest.zero_dc) == (net.config.family, net.config.zero_dc)
    assert min(manifest.verification.values()) >= {"fp32": 90, "fp16": 40, "bf16": 25}[form[2]]


@pytest.mark.parametrize(
    "form", [("portable", "spectrum"), ("ort", "spectrum"), ("ort", "waveform")]
)
def test_every_length_agrees_with_the_network(
    exported: Exported, net: RoFormer, form: tuple[str, str]
) -> None:
    """One engine runs short, long and short audio: no position is remembered."""
    engine = OrtEngine(read_onnx(exported(*form)), CPU)
    for samples in (2000, 1, 30_000, 257, 2000):
        audio = check_input(3, 2, samples)
        with torch.inference_mode():
            expected = net(torch.from_numpy(audio)[None])[0].numpy()
        assert snr_db(expected, engine.run(audio)) >= 90


def test_plain_onnx_runtime_runs_the_portable_file(exported: Exported, net: RoFormer) -> None:
    session = onnxruntime.InferenceSession(exported(), providers=["CPUExecutionProvider"])
    spectra = np.random.default_rng(0).normal(size=(2, 2, 33, 257, 2)).astype(np.float32)
    with torch.inference_mode():
        expected = net.separate_spectrum(torch.from_numpy(spectra)).numpy()
    assert snr_db(expected, session.run(None, {"spectrum": spectra})[0]) >= 90


def test_a_graph_has_one_node_per_attention_and_every_name_of_the_checkpoint(
    exported: Exported, net: RoFormer
) -> None:
    model = onnx.load(exported())
    ours = [node.op_type for node in model.graph.node if node.domain == "bsmamba2"]
    assert ours == ["rotary_attention"] * 2 * net.config.depth
    shapes = {value.name: tuple(value.dims) for value in model.graph.initializer}
    assert all(shapes[key] == tuple(v.shape) for key, v in net.state_dict().items())


def test_each_attention_reads_the_rotation_of_its_own_layer(exported: Exported) -> None:
    model = onnx.load(exported())
    read = [node.input[2] for node in model.graph.node if node.domain == "bsmamba2"]
    slots = [(name.split(".")[1], int(name.split(".")[2])) for name in read]
    assert slots == sorted(set(slots))
    assert len(slots) == len(read)


def test_for_tensorrt_only_standard_operators_remain(exported: Exported) -> None:
    nodes = onnx.load(exported("tensorrt")).graph.node
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}
    assert "Attention" not in {node.op_type for node in nodes}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tensorrt_rtx_builds_an_engine(exported: Exported, tmp_path: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    model = exported("tensorrt", precision=precision)
    engine = build_engine(model, tmp_path / "m.engine", gpus=["sm89"], seconds=0.5)
    assert engine.manifest.family == read_onnx(model).manifest.family


def test_narrow_products_leave_norms_rotation_and_softmax_in_float32(exported: Exported) -> None:
    model = onnx.load(exported("tensorrt", precision="bf16"))
    kinds = {value.name: value.data_type for value in model.graph.initializer}
    sensitive = [name for name in kinds if name.endswith(("gamma", "freqs", "temperature"))]
    assert {kinds[name] for name in sensitive} == {onnx.TensorProto.FLOAT}
    products = [name for name in kinds if name.endswith(("to_qkv.weight", "net.1.weight"))]
    assert {kinds[name] for name in products} == {onnx.TensorProto.BFLOAT16}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("Softmax", "Sin", "Cos", "ReduceL2"):
            maker = makers.get(node.input[0])
            to = [a.i for a in maker.attribute if a.name == "to"] if maker is not None else []
            assert onnx.TensorProto.BFLOAT16 not in to


def test_the_command_exports_a_checkpoint_and_info_names_the_family(tmp_path: Path) -> None:
    net = small_roformer(BS_SMALL)
    net.save(tmp_path / "voice.safetensors")
    arguments = ["export", str(tmp_path / "voice.safetensors"), "-o", str(tmp_path / "voice.onnx")]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout.count("SNR") >= 3) == (0, True), result.output
    assert read_onnx(tmp_path / "voice.onnx").manifest.family == "bs_roformer"
    arguments += ["--overwrite", "--streaming"]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2
    assert "streaming must be left out for a BS-RoFormer" in refused.stderr


def test_sizes_that_a_checkpoint_does_not_state_are_named_as_guesses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "export_network", lambda net, manifest, *rest: manifest)
    net = RoFormer(RoFormerConfig(bands=(1025,), dim=8, depth=1, heads=2, head_dim=4))
    torch.save(net.state_dict(), tmp_path / "m.ckpt")
    notices: list[str] = []
    exporter.export(tmp_path / "m.ckpt", tmp_path / "m.onnx", notice=notices.append)
    assert "guesses: stems ('vocals',), hop 441, chunk 352800, zero_dc False" in notices[0]


def test_what_the_catalogue_knows_of_a_checkpoint_replaces_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ModelSettings(stems=("other",), hop=512, chunk=131584, zero_dc=True)
    monkeypatch.setattr(families, "settings_of", lambda sha256: settings)
    net = RoFormer(RoFormerConfig(bands=(1025,), dim=8, depth=1, heads=2, head_dim=4))
    torch.save(net.state_dict(), tmp_path / "m.ckpt")
    config = families.load_network(tmp_path / "m.ckpt").config
    assert (config.stems, config.hop, config.chunk) == (("other",), 512, 131584)
    assert config.zero_dc
    assert not families.guesses(read_checkpoint(tmp_path / "m.ckpt"))


def test_the_plugin_for_tensorrt_is_only_for_scans(net: RoFormer, tmp_path: Path) -> None:
    manifest = describe(net, "small", target="tensorrt-plugin")
    with pytest.raises(ModelError, match="use the target tensorrt"):
        export_network(net, manifest, tmp_path / "m.onnx")


def test_a_shared_weight_keeps_all_its_names_and_the_network_stays_shared(net: RoFormer) -> None:
    before = len(list(net.parameters()))
    trace(net)
    assert len(list(net.parameters())) == before < len(net.state_dict())
