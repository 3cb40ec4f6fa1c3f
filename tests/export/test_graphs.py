"""The shipped graphs are what the network exports to today, and hold no weights."""

from __future__ import annotations

from importlib.resources import files

import onnx
import pytest

from bsmamba2.fourier import ANALYSIS, SYNTHESIS
from bsmamba2.models import shipped_graphs
from bsmamba2_export.graphs import FILES, weightless_graph
from bsmamba2_network import BSMamba2


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_graph_is_what_export_makes(name):
    """As text, so that a failure shows the node; python -m bsmamba2_export.graphs mends it."""
    shipped = onnx.load(files("bsmamba2") / "graphs" / name, load_external_data=False)
    assert onnx.printer.to_text(shipped) == onnx.printer.to_text(weightless_graph(*FILES[name]))


@pytest.mark.parametrize("graph", shipped_graphs(), ids=lambda graph: graph.path.stem)
def test_a_shipped_graph_wants_exactly_its_checkpoints_tensors(graph):
    preset, io, streaming = FILES[graph.path.name]
    state = BSMamba2.untrained(preset).state_dict()
    matrices = {ANALYSIS, SYNTHESIS} if io == "waveform" else set()
    assert set(graph.wanting) == state.keys() | matrices
    assert state.keys() == graph.manifest.initialisers.keys()
    assert (graph.manifest.io, graph.manifest.streaming) == (io, streaming)
    assert graph.path.stat().st_size < 1 << 20
