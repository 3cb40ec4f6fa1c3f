"""SCNet and HT Demucs, which take only whole chunks, in every form of export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bsmamba2 import ModelError
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import CPU
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import check_input
from bsmamba2_export import artifact
from bsmamba2_export.engine_builder import build_engine
from bsmamba2_export.exporter import describe, export_network
from bsmamba2_network import HTDemucs, HTDemucsConfig
from bsmamba2_network.families import Network
from support.reference_networks import randomised
from support.small_convnets import SIZES, small_network

FAMILIES = pytest.mark.parametrize("family", SIZES)
Exported = Callable[..., Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """``exported(family, target="ort", …)`` returns the path of the model in this form."""
    folder = tmp_path_factory.mktemp("exported")

    def path_of(family: str, **form: Any) -> Path:
        path = folder / f"{'-'.join([family, *form.values()])}.onnx"
        if not path.exists():
            net = small_network(family)
            export_network(net, describe(net, family, **form), path)
        return path

    return path_of


def separated(net: Network, chunk: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns the network's stems for a chunk that is padded and normalised by hand."""
    config, samples = net.config, chunk.shape[-1]
    padded = np.zeros((2, config.chunk), np.float32)
    padded[:, :samples] = chunk
    mean, deviation = np.float32(0), np.float32(1)
    if config.normalize:
        mean, deviation = padded.mean(0).mean(), padded.mean(0).std()
    with torch.inference_mode():
        stems = net(torch.from_numpy((padded - mean) / deviation)[None])[0].numpy()
    result: np.ndarray[Any, Any] = (stems * deviation + mean)[..., :samples]
    return result


@FAMILIES
@pytest.mark.parametrize("target", ["portable", "ort", "tensorrt"])
def test_every_target_records_that_it_agrees_with_the_network(
    exported: Exported, family: str, target: str
) -> None:
    manifest = read_onnx(exported(family, target=target)).manifest
    assert (manifest.family, manifest.transform, manifest.fixed_length) == (family, family, True)
    assert (manifest.io, manifest.normalize) == (
        ("spectrum", True) if family == "scnet" else ("both", False)
    )
    assert min(manifest.verification.values()) >= 90


@FAMILIES
@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize("samples", [1, 150, 300])
def test_every_length_up_to_a_chunk_agrees_with_the_network(
    exported: Exported, family: str, target: str, samples: int
) -> None:
    engine = OrtEngine(read_onnx(exported(family, target=target)), CPU)
    audio = check_input(3, 2, samples)
    assert snr_db(separated(small_network(family), audio), engine.run(audio)) >= 90


@FAMILIES
def test_plain_onnx_runtime_runs_any_batch_of_spectra(exported: Exported, family: str) -> None:
    net: Any = small_network(family)
    config, session = net.config, onnxruntime.InferenceSession(exported(family, target="portable"))
    noise = torch.Generator().manual_seed(4)
    inputs = [torch.randn(3, 2, config.frames, config.bins, 2, generator=noise)]
    if family == "htdemucs":
        inputs.append(torch.randn(3, 2, config.chunk, generator=noise))
    names = [value.name for value in session.get_inputs()]
    actual = session.run(None, {k: v.numpy() for k, v in zip(names, inputs, strict=True)})
    with torch.inference_mode():
        expected = (
            net.separate_both(*inputs) if len(inputs) == 2 else [net.separate_spectrum(*inputs)]
        )
    for theirs, ours in zip(expected, actual, strict=True):
        assert snr_db(theirs.numpy(), ours) >= 90


@FAMILIES
def test_a_graph_has_the_checkpoints_tensors_and_no_other_large_ones(
    exported: Exported, family: str
) -> None:
    model = onnx.load(exported(family, target="portable"))
    shapes = {value.name: tuple(value.dims) for value in model.graph.initializer}
    state = {key: tuple(v.shape) for key, v in small_network(family).state_dict().items()}
    assert state.items() <= shapes.items()
    others = [v for v in model.graph.initializer if v.name not in state]
    assert max(len(value.raw_data) for value in others) <= 64


@FAMILIES
def test_a_checkpoint_is_poured_into_a_graph_without_weights(
    exported: Exported, family: str, tmp_path: Path
) -> None:
    model = onnx.load(exported(family, target="ort"))
    weights = {key: value.numpy() for key, value in small_network(family).state_dict().items()}
    artifact.write(artifact.without_weights(model, set(weights)), tmp_path / "empty.onnx")
    file, audio = read_onnx(tmp_path / "empty.onnx"), check_input(5, 2, 300)
    poured = OrtEngine(file, CPU, weights)
    whole = OrtEngine(read_onnx(exported(family, target="ort")), CPU)
    assert set(file.missing_weights) == set(weights)
    np.testing.assert_array_equal(poured.run(audio), whole.run(audio))


@FAMILIES
def test_weights_in_half_precision_make_a_smaller_file_that_agrees(
    exported: Exported, family: str
) -> None:
    half = exported(family, target="portable", weights="fp16")
    types = {v.name: v.data_type for v in onnx.load(half).graph.initializer}
    state = small_network(family).state_dict()
    matrices = {key for key, value in state.items() if value.ndim > 1}
    assert {k for k in state if types[k] == onnx.TensorProto.FLOAT16} == matrices
    verification = dict(read_onnx(half).manifest.verification)
    assert verification.pop("stored_weights") > 40
    assert min(verification.values()) >= 90


def test_a_long_chunk_agrees_although_its_mean_is_over_millions_of_numbers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net: Any = randomised(HTDemucs(HTDemucsConfig(width=8, bottom=16, layers=1)))
    manifest = export_network(net, describe(net, "long"), tmp_path / "long.onnx")
    assert min(manifest.verification.values()) >= 95


@FAMILIES
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_narrow_products_agree_within_their_precision(
    exported: Exported, family: str, precision: str
) -> None:
    manifest = read_onnx(exported(family, target="portable", precision=precision)).manifest
    assert 20 <= min(manifest.verification.values()) < 90


@FAMILIES
def test_narrow_products_keep_near_silence(exported: Exported, family: str) -> None:
    """Both networks divide by the deviation of what they get, which stays in float32."""
    engine = OrtEngine(read_onnx(exported(family, target="portable", precision="fp16")), CPU)
    audio = 1e-6 * check_input(6, 2, 300)
    assert snr_db(separated(small_network(family), audio), engine.run(audio)) >= 20


@FAMILIES
def test_tensorrt_rtx_builds_an_engine(exported: Exported, family: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    path = tmp_path / "m.engine"
    engine = build_engine(exported(family, target="portable"), path, gpus=["sm89"])
    manifest = engine.manifest
    assert (manifest.family, engine.key.frames) == (family, manifest.chunk // manifest.hop + 1)


@pytest.mark.parametrize(
    ("family", "io", "allowed"),
    [
        ("scnet", "waveform", "spectrum"),
        ("scnet", "both", "spectrum"),
        ("htdemucs", "spectrum", "both"),
    ],
)
def test_other_inputs_are_refused(family: str, io: str, allowed: str) -> None:
    with pytest.raises(ModelError, match=f"io must be {allowed} for a .*; got '{io}'"):
        describe(small_network(family), family, io=io)


@FAMILIES
def test_steps_of_a_stream_are_refused(family: str) -> None:
    with pytest.raises(ModelError, match="streaming must be left out for a .*whole chunks"):
        describe(small_network(family), family, streaming=True)
