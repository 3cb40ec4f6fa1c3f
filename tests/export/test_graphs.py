"""The shipped graphs are what the network exports to today, and hold no weights; and at the paper's
size every form agrees with the network on a second of audio, here because it is traced here."""

from __future__ import annotations

from importlib.resources import files

import onnx
import pytest
import torch

from bsmamba2.audio.fourier import ANALYSIS, SYNTHESIS
from bsmamba2.audio.snr import snr_db
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import check_input
from bsmamba2.models.model import shipped_graphs
from bsmamba2_export import artifact
from bsmamba2_export.exporter import describe
from bsmamba2_export.graphs import FILES, weightless_graph
from bsmamba2_export.trace import set_target, trace
from bsmamba2_network import BSMamba2


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_graph_is_what_export_makes(name):
    """As text, so that a failure shows the node; python -m bsmamba2_export.graphs mends it."""
    shipped = onnx.load(files("bsmamba2.models") / "graphs" / name, load_external_data=False)
    assert onnx.printer.to_text(shipped) == onnx.printer.to_text(weightless_graph(*FILES[name]))


@pytest.mark.parametrize("graph", shipped_graphs(), ids=lambda graph: graph.path.stem)
def test_a_shipped_graph_wants_exactly_its_checkpoints_tensors(graph):
    preset, io, streaming = FILES[graph.path.name]
    state = BSMamba2.untrained(preset).state_dict()
    matrices = {ANALYSIS, SYNTHESIS} if io == "waveform" else set()
    assert set(graph.missing_weights) == state.keys() | matrices
    assert state.keys() == graph.manifest.initialisers.keys()
    assert (graph.manifest.io, graph.manifest.streaming) == (io, streaming)
    assert graph.path.stat().st_size < 1 << 20


@pytest.fixture(scope="module")
def paper():
    return BSMamba2.untrained("paper", seed=1)


@pytest.fixture(scope="module")
def second(paper):
    """A second of noise and what the network makes of it."""
    audio = check_input(5, 2, 44100)
    with torch.inference_mode():
        return audio, paper(torch.from_numpy(audio)[None])[0].numpy()


@pytest.mark.parametrize("io", ["spectrum", "waveform"])
def test_both_targets_agree_with_the_network_to_90_db(paper, second, tmp_path, io):
    model = trace(paper, io)
    for target in ("portable", "ort"):
        set_target(model, target)
        artifact.set_manifest(model, describe(paper, "paper", target=target, io=io))
        artifact.write(model, tmp_path / "paper.onnx")
        for kernel in (False, True):
            engine = OrtEngine(read_onnx(tmp_path / "paper.onnx"), "cpu", kernel=kernel)
            assert snr_db(second[1], engine.run(second[0])) >= 90
