"""The shipped graphs, and how a checkpoint is poured into one of them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from bsmamba2 import ModelError
from bsmamba2.audio import fourier
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import CPU
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.files.hashing import file_sha256
from bsmamba2.formats.checkpoint import Checkpoint, read_checkpoint
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.graph import (
    Graph,
    find_graph,
    pour,
    poured_manifest,
    shipped_graphs,
    widened_manifest,
)
from bsmamba2.models.registry import DEFAULT, shipped
from support.fixtures import Noise, WriteOnnx
from support.models import MANIFEST, gain_model, random_weights

CONFIG = {"stems": ["drums"], "sample_rate": 48000, "hop": 480, "chunk": 96000}


def checkpoint(size: str = "tiny", **metadata: str) -> Checkpoint:
    """A checkpoint of random weights, of a shipped size."""
    stored = {f"bsmamba2.{key}": value for key, value in metadata.items()}
    return Checkpoint(random_weights(size), stored, "a" * 64, "voice")


def test_each_size_has_a_graph_for_spectra_for_audio_and_for_streams() -> None:
    exact = [graph for graph in shipped_graphs() if graph.manifest.precision == "fp32"]
    forms = [(graph.manifest.streaming, graph.manifest.io) for graph in exact]
    assert len({graph.path.stem for graph in exact}) == len(forms)
    assert set(Counter(forms)) == {(False, "spectrum"), (False, "waveform"), (True, "spectrum")}
    assert len(set(Counter(forms).values())) == 1
    assert {graph.path.stem for graph in shipped_graphs()} >= {"paper", "tiny"}


def test_a_graph_of_lower_precision_takes_audio_and_the_same_weights() -> None:
    for precision in ("fp16", "bf16"):
        narrow = find_graph(checkpoint("tiny"), precision=precision)
        exact = find_graph(checkpoint("tiny"), io="waveform")
        assert (narrow.manifest.io, narrow.manifest.precision) == ("waveform", precision)
        assert set(narrow.missing_weights) == set(exact.missing_weights)


def test_the_shipped_graphs_have_no_weights_and_no_check() -> None:
    assert all(graph.missing_weights and not graph.manifest.check for graph in shipped_graphs())


@pytest.mark.parametrize("form", [{}, {"streaming": True}, {"io": "waveform"}])
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_a_checkpoint_is_poured_into_the_graph_of_its_size(size: str, form: dict[str, Any]) -> None:
    graph = find_graph(checkpoint(size), **form)
    assert graph.path.stem.partition("-")[0] == size
    assert graph.manifest.streaming == form.get("streaming", False)
    assert graph.manifest.io == form.get("io", "spectrum")


def test_a_size_without_a_graph_is_refused_with_the_command_that_exports_it() -> None:
    weights = {name: np.zeros((*values.shape, 2)) for name, values in random_weights().items()}
    odd = Checkpoint(weights, {}, "", "voice")
    with pytest.raises(ModelError, match=r"has a size without a shipped graph .*paper.*tiny.*ex"):
        find_graph(odd)


def test_a_checkpoint_that_lacks_a_tensor_is_refused_with_its_name() -> None:
    damaged = checkpoint()
    tensors = {k: v for k, v in damaged.tensors.items() if k != "final_norm.gamma"}
    with pytest.raises(ModelError, match="1 missing: final_norm.gamma"):
        find_graph(Checkpoint(tensors, {}, "", "voice"))


def test_the_tensors_of_a_checkpoint_are_shared_and_not_copied() -> None:
    source = checkpoint()
    weights = pour(source).weights
    assert weights is not None
    assert all(weights[name] is values for name, values in source.tensors.items())


def test_a_graph_gets_the_name_hash_licence_and_lengths_of_its_checkpoint() -> None:
    source = checkpoint(licence="MIT", config=json.dumps(CONFIG))
    manifest = pour(source).manifest
    assert (manifest.name, manifest.checkpoint_sha256) == ("voice", "a" * 64)
    assert (manifest.licence, manifest.stems, manifest.residual) == ("MIT", ("drums",), "residual")
    assert (manifest.sample_rate, manifest.hop, manifest.chunk) == (48000, 480, 96000)


@pytest.mark.parametrize(
    "config", ["", "[]", "{}", "[" * 9999, json.dumps(CONFIG | {"hop": "x"}), '{"stems": 1}']
)
def test_damaged_sizes_in_a_checkpoint_are_refused(config: str) -> None:
    with pytest.raises(ModelError, match="the sizes stored in voice are damaged"):
        pour(checkpoint(config=config))


def test_more_stems_than_weights_are_refused() -> None:
    config = json.dumps(CONFIG | {"stems": ["drums", "bass"]})
    with pytest.raises(ModelError, match="stems of voice must be 1, .* got 2: drums, bass"):
        pour(checkpoint(config=config))


def test_a_graph_for_audio_gets_the_matrices_of_the_transform() -> None:
    graph = pour(checkpoint(), io="waveform")
    assert graph.manifest.io == "waveform"
    assert graph.weights is not None
    assert set(graph.file.missing_weights) <= set(graph.weights)
    assert fourier.ANALYSIS in graph.weights


def test_a_checkpoint_with_another_hop_gets_the_graph_for_spectra() -> None:
    graph = pour(checkpoint(config=json.dumps(CONFIG)), io="waveform")
    assert (graph.manifest.io, graph.manifest.hop) == ("spectrum", 480)


@pytest.mark.parametrize("samples", [1, 2048, 44100])
def test_the_graph_for_audio_equals_the_graph_for_spectra(noise: Noise, samples: int) -> None:
    source, chunk = read_checkpoint(shipped()[DEFAULT]), noise(2, samples)
    by_spectra, by_audio = (
        OrtEngine(graph.file, CPU, graph.weights, graph.manifest).run(chunk)
        for graph in (pour(source), pour(source, io="waveform"))
    )
    assert snr_db(by_spectra, by_audio) > 90


def test_a_graph_is_identified_by_all_its_files_and_its_checkpoint(write_onnx: WriteOnnx) -> None:
    path = write_onnx(gain_model(location="data"))
    data = path.parent / "data"
    data.write_bytes(bytes(4))
    file = read_onnx(path)
    graph = Graph(file, MANIFEST.replace(checkpoint_sha256="a" * 64))
    assert graph.sha256 == f"{file_sha256(path)} {file_sha256(data)} {'a' * 64}"


def test_a_widened_model_is_float32_and_has_no_check() -> None:
    graph = find_graph(checkpoint())
    reduced = poured_manifest(graph.manifest, checkpoint()).replace(
        precision="fp16", weights="fp16", target="ort", io="waveform"
    )
    manifest = widened_manifest(reduced, graph.manifest)
    assert (manifest.name, manifest.precision, manifest.weights) == ("voice", "fp32", "fp32")
    assert (manifest.io, manifest.target) == ("spectrum", graph.manifest.target)


def test_unprintable_text_of_a_checkpoint_is_escaped() -> None:
    source = Checkpoint(random_weights(), {"bsmamba2.licence": "a\x1b[2J"}, "a" * 64, "b\n")
    manifest = pour(source).manifest
    assert (manifest.name, manifest.licence) == ("b�", "a�[2J")


def test_a_checkpoint_with_the_longest_file_name_has_a_manifest() -> None:
    source = Checkpoint(random_weights(), {}, "a" * 64, "b" * 250)
    assert pour(source).manifest.name == "b" * 199 + "…"


@pytest.mark.parametrize("sizes", [{"hop": 1, "chunk": 1 << 24}, {"hop": 1, "chunk": 2048}])
def test_a_checkpoint_whose_stated_lengths_would_fill_the_memory_is_refused(
    sizes: dict[str, int],
) -> None:
    stored = {"stems": ["vocals"], "sample_rate": 44100, **sizes}
    with pytest.raises(ModelError, match="hop must be longer"):
        pour(checkpoint(config=json.dumps(stored)))
