"""The shipped graphs equal the network's current export and have no weights.

Checkpoints run in them. At the paper's size they also agree with the network on a second of audio.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from bsmamba2.audio import fourier
from bsmamba2.audio.array import Audio
from bsmamba2.audio.fourier import ANALYSIS, SYNTHESIS
from bsmamba2.audio.schedule import Schedule
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import CPU
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.protocols import ReducedPrecisionEngine
from bsmamba2.formats.onnx_file import OnnxFile, read_onnx
from bsmamba2.models.check import check_input
from bsmamba2.models.graph import shipped_graphs
from bsmamba2_export import artifact, export
from bsmamba2_export.exporter import describe
from bsmamba2_export.graphs import FILES, SOURCE, source_sha256, weightless_graph
from bsmamba2_export.trace import set_target
from bsmamba2_network import BSMamba2
from bsmamba2_network.families import FAMILIES, SIZES, Network, untrained
from support.models import open_engine, open_step_engine
from support.streams import run_steps

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


@cache
def names(preset: str) -> frozenset[str]:
    """The names of a size's tensors."""
    config: Any = SIZES[preset]
    network: Any = FAMILIES[config.family][0]
    with torch.device("meta"):
        return frozenset(network(config).state_dict())


@pytest.mark.parametrize(
    "graph",
    [graph for family in FAMILIES for graph in shipped_graphs(family)],
    ids=lambda graph: graph.path.stem,
)
def test_a_shipped_graph_needs_exactly_its_checkpoints_tensors(graph: OnnxFile) -> None:
    preset, io, streaming, precision = FILES[graph.path.name]
    config: Any = SIZES[preset]
    state = names(preset)
    matrices = {ANALYSIS, SYNTHESIS} if io == "waveform" else set()
    assert set(graph.missing_weights) == state | matrices
    assert state == graph.manifest.initialisers.keys()
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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the smallest size."""
    path = tmp_path_factory.mktemp("weights") / "voice.safetensors"
    BSMamba2.untrained("tiny").save(path)
    return path


def test_a_checkpoint_in_its_graph_equals_a_model_with_the_same_weights_inside(
    checkpoint: Path, tmp_path: Path
) -> None:
    artifact.write(poured(BSMamba2.untrained("tiny"), "tiny.onnx"), tmp_path / "voice.onnx")
    whole, audio = OrtEngine(read_onnx(tmp_path / "voice.onnx"), CPU), check_input(4, 2, 20_000)
    np.testing.assert_array_equal(open_engine(checkpoint, "cpu").run(audio), whole.run(audio))


def test_a_checkpoint_runs_in_the_graph_of_streams_too(checkpoint: Path) -> None:
    shape = 1, 2, 9, 1025, 2
    spectrum = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    step = open_step_engine(checkpoint, "cpu").step
    streamed = run_steps(step, spectrum, Schedule(4, 3))[0]
    engine = open_engine(checkpoint, "cpu")
    assert isinstance(engine, OrtEngine)
    first_seven = engine.run_spectrum(spectrum[:, :, :7])
    assert snr_db(first_seven[:, :, :, :4], streamed) >= 100


def test_a_narrow_model_has_a_float32_twin(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "narrow.onnx", precision="fp16")
    engine, noise = open_engine(tmp_path / "narrow.onnx", "cpu"), check_input(0, 2, 9000)
    assert isinstance(engine, ReducedPrecisionEngine)
    assert engine.in_float32() is engine.in_float32()
    assert not isinstance(engine.in_float32(), ReducedPrecisionEngine)
    expected = open_engine(checkpoint, "cpu").run(noise)
    assert snr_db(expected, engine.in_float32().run(noise)) > 50


# The smallest networks have every form in the other tests of this folder. This size takes seconds.
FORMS = [
    ("spectrum", "portable", True),
    *(
        pytest.param(io, target, kernel, marks=pytest.mark.slow)
        for io in ("spectrum", "waveform")
        for target in ("portable", "ort")
        for kernel in (False, True)
        if (io, target, kernel) != ("spectrum", "portable", True)
    ),
]


@pytest.mark.parametrize(("io", "target", "kernel"), FORMS)
def test_the_papers_size_agrees_with_the_network_to_90_db(
    paper: BSMamba2,
    second: tuple[Audio, Audio],
    tmp_path: Path,
    io: str,
    target: str,
    kernel: bool,
) -> None:
    model = poured(paper, "paper.onnx" if io == "spectrum" else "paper-waveform.onnx")
    set_target(model, target)
    artifact.set_manifest(model, describe(paper, "paper", target=target, io=io))
    artifact.write(model, tmp_path / "paper.onnx")
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
