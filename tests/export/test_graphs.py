"""The shipped graphs equal the network's current export and have no weights.

At the paper's size they also agree with the network on a second of audio, for both targets.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper

from bsmamba2.audio import fourier
from bsmamba2.audio.array import Audio
from bsmamba2.audio.fourier import ANALYSIS, SYNTHESIS
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import CPU
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.formats.onnx_file import OnnxFile, read_onnx
from bsmamba2.models.check import check_input
from bsmamba2.models.graph import shipped_graphs
from bsmamba2_export import artifact
from bsmamba2_export.exporter import describe
from bsmamba2_export.graphs import FILES, SOURCE, source_sha256, weightless_graph
from bsmamba2_export.trace import set_target
from bsmamba2_network import BSMamba2
from bsmamba2_network.families import FAMILIES, SIZES, Network, untrained

# The larger sizes have the same code and take minutes to trace.
BY_SIZE = [
    pytest.param(name, marks=[pytest.mark.slow] * (preset != "tiny"))
    for name, (preset, *_) in FILES.items()
]


def test_shipped_graphs_were_written_from_this_source() -> None:
    written = json.loads((files("bsmamba2.models") / "graphs" / SOURCE).read_text())
    fix = "run python -m bsmamba2_export.graphs"
    assert written == {"source_sha256": source_sha256()}, fix


@pytest.mark.parametrize("name", BY_SIZE)
def test_a_shipped_graph_equals_the_current_export(name: str) -> None:
    """Compared as text, to show the node that differs; to fix: python -m bsmamba2_export.graphs."""
    content = (files("bsmamba2.models") / "graphs" / name).read_bytes()
    shipped = onnx.load_model_from_string(content)
    assert onnx.printer.to_text(shipped) == onnx.printer.to_text(weightless_graph(*FILES[name]))


@pytest.mark.parametrize(
    "graph",
    [graph for family in FAMILIES for graph in shipped_graphs(family)],
    ids=lambda graph: graph.path.stem,
)
def test_a_shipped_graph_needs_exactly_its_checkpoints_tensors(graph: OnnxFile) -> None:
    preset, io, streaming, precision = FILES[graph.path.name]
    config: Any = SIZES[preset]
    network: Any = FAMILIES[config.family][0]
    with torch.device("meta"):
        state = network(config).state_dict()
    matrices = {ANALYSIS, SYNTHESIS} if io == "waveform" else set()
    assert set(graph.missing_weights) == state.keys() | matrices
    assert state.keys() == graph.manifest.initialisers.keys()
    known, default = graph.manifest, "both" if config.family == "htdemucs" else "spectrum"
    assert (known.io, known.streaming, known.precision) == (io or default, streaming, precision)
    assert (graph.manifest.family, graph.manifest.stems) == (config.family, config.stems)
    assert graph.path.stat().st_size < 1 << 20


@pytest.fixture(scope="module")
def paper() -> BSMamba2:
    return BSMamba2.untrained("paper", seed=1)


@pytest.fixture(scope="module")
def second(paper: BSMamba2) -> tuple[Audio, Audio]:
    """A second of noise, and the network's stems for it."""
    audio = check_input(5, 2, 44100)
    with torch.inference_mode():
        return audio, paper(torch.from_numpy(audio)[None])[0].numpy()


def poured(net: Network, name: str) -> onnx.ModelProto:
    """A shipped graph with a network's weights inside."""
    model = onnx.load_model_from_string((files("bsmamba2.models") / "graphs" / name).read_bytes())
    weights = {key: value.numpy() for key, value in net.state_dict().items()}
    weights |= fourier.matrices(net.config.n_fft, net.config.hop)
    for value in model.graph.initializer:
        if value.name in weights:
            value.CopyFrom(numpy_helper.from_array(weights[value.name], value.name))
    return model


@pytest.mark.parametrize("io", ["spectrum", pytest.param("waveform", marks=pytest.mark.slow)])
def test_both_targets_agree_with_the_network_to_90_db(
    paper: BSMamba2, second: tuple[Audio, Audio], tmp_path: Path, io: str
) -> None:
    model = poured(paper, "paper.onnx" if io == "spectrum" else "paper-waveform.onnx")
    for target in ("portable", "ort"):
        set_target(model, target)
        artifact.set_manifest(model, describe(paper, "paper", target=target, io=io))
        artifact.write(model, tmp_path / "paper.onnx")
        for kernel in (False, True):
            engine = OrtEngine(read_onnx(tmp_path / "paper.onnx"), CPU, kernel=kernel)
            assert snr_db(second[1], engine.run(second[0])) >= 90


@pytest.mark.slow
@pytest.mark.parametrize("size", ["bs_roformer_256x12", "mel_band_roformer_384x6"])
def test_a_published_roformer_agrees_with_the_network_to_90_db(size: str, tmp_path: Path) -> None:
    net: Any = untrained(size)
    audio = check_input(5, 2, 44100)
    with torch.inference_mode():
        expected = net(torch.from_numpy(audio)[None])[0].numpy()
    model = poured(net, f"{size}.onnx")
    for target in ("portable", "ort"):
        set_target(model, target)
        artifact.set_manifest(model, describe(net, size, target=target))
        artifact.write(model, tmp_path / "model.onnx")
        engine = OrtEngine(read_onnx(tmp_path / "model.onnx"), CPU)
        assert snr_db(expected, engine.run(audio)) >= 90
