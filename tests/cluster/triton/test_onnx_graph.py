"""Checkpoints become complete ONNX files without the onnx package."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bsmamba2 import ModelError
from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import CPU
from bsmamba2.models.open_model import open_model
from bsmamba2_cluster.triton.onnx_graph import Tensor, complete_onnx, read_tensors
from support.models import gain_model

KINDS = pytest.mark.parametrize(
    ("streaming", "io"), [(False, "spectrum"), (False, "waveform"), (True, "spectrum")]
)


@KINDS
def test_every_weight_is_in_the_file_and_nothing_else_changed(
    checkpoint: Path, streaming: bool, io: str
) -> None:
    graph = open_model(checkpoint).graph(streaming=streaming, io=io)
    shipped = onnx.load(graph.file.path, load_external_data=False)
    written = onnx.load_from_string(complete_onnx(graph))
    onnx.checker.check_model(written)
    assert graph.weights is not None
    for tensor in written.graph.initializer:
        if tensor.name in graph.file.missing_weights:
            assert np.array_equal(numpy_helper.to_array(tensor), graph.weights[tensor.name])
    for model in (shipped, written):
        del model.graph.initializer[:], model.metadata_props[:]
    assert shipped == written


def test_the_file_computes_the_same_bits_as_the_checkpoint(
    checkpoint: Path, tmp_path: Path, audio: Audio
) -> None:
    model = open_model(checkpoint)
    path = tmp_path / "tiny.onnx"
    path.write_bytes(complete_onnx(model.graph()))
    complete = open_model(path)
    assert complete.manifest.to_json() == model.manifest.to_json()
    chunk = audio[:, :44100]
    expected = model.chunk_engine(CPU).run(chunk)
    assert np.array_equal(complete.chunk_engine(CPU).run(chunk), expected)


def test_an_onnx_file_is_copied_byte_for_byte(gain: Path) -> None:
    assert complete_onnx(open_model(gain).graph()) == gain.read_bytes()


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "gain.onnx"
    path.write_bytes(gain_model(location="gain.bin"))
    np.full(1, 0.5, np.float32).tofile(tmp_path / "gain.bin")
    with pytest.raises(ModelError, match="must contain its weights; got one .* in gain.bin"):
        complete_onnx(open_model(path).graph())


def test_weights_beyond_the_limit_of_a_file_are_refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bsmamba2_cluster.triton.onnx_graph.MAX_BYTES", 1000)
    with pytest.raises(ModelError, match="weights of tiny must be at most 2 GiB; got"):
        complete_onnx(open_model(checkpoint).graph())


def test_a_graph_of_another_layout_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    graph = open_model(checkpoint).graph()
    # The length of the graph, in a longer form than any writer of ONNX files uses.
    content = graph.file.path.read_bytes()
    body = onnx.load_from_string(content).graph.SerializeToString()
    at = content.index(body)
    length = content[at - 3 : at]
    (tmp_path / "odd.onnx").write_bytes(
        content[: at - 3] + length[:2] + bytes([length[2] | 0x80, 0]) + content[at:]
    )
    odd = dataclasses.replace(
        graph, file=dataclasses.replace(graph.file, path=tmp_path / "odd.onnx")
    )
    with pytest.raises(ModelError, match="is not laid out"):
        complete_onnx(odd)


def test_sizes_that_a_graph_leaves_open_are_minus_one(gain: Path) -> None:
    inputs, outputs = read_tensors(gain)
    assert inputs == (Tensor("spectrum", (-1, 2, -1, 9, 2)),)
    assert outputs == (Tensor("stems", (-1, 1, 2, -1, 9, 2)),)
