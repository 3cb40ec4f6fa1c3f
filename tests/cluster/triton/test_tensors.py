"""The inputs and outputs that a manifest implies, and those of a server."""

from __future__ import annotations

from typing import Any

import pytest

from bsmamba2 import Manifest, ModelError
from bsmamba2.models.open_model import open_model
from bsmamba2_cluster.triton.onnx_graph import read_tensors
from bsmamba2_cluster.triton.tensors import expected_tensors, require_tensors

MANIFEST = Manifest("voice")
SPECTRUM = [-1, 2, -1, 1025, 2]
STEMS = [-1, 1, 2, -1, 1025, 2]


def metadata(**changes: Any) -> dict[str, Any]:
    """A server's answer about a model of spectra."""
    given = {"name": "spectrum", "datatype": "FP32", "shape": SPECTRUM} | changes
    return {
        "inputs": [given],
        "outputs": [{"name": "stems", "datatype": "FP32", "shape": STEMS}],
    }


@pytest.mark.parametrize(
    ("streaming", "io"), [(False, "spectrum"), (False, "waveform"), (True, "spectrum")]
)
def test_they_are_those_of_the_shipped_graphs(streaming: bool, io: str) -> None:
    graph = open_model().graph(streaming=streaming, io=io)
    states = {n for s in graph.manifest.states for n in (s.name, f"next_{s.name}")}
    found = tuple(
        {t.name: t.shape for t in tensors if t.name not in states}
        for tensors in read_tensors(graph.file.path)
    )
    assert found == expected_tensors(graph.manifest)


def test_a_graph_of_both_has_two_of_each() -> None:
    inputs, outputs = expected_tensors(Manifest("both", io="both"))
    assert (list(inputs), list(outputs)) == (
        ["spectrum", "waveform"],
        ["stems", "waveform_stems"],
    )


def test_a_server_may_state_sizes_that_the_manifest_leaves_open() -> None:
    require_tensors(metadata(shape=[1, 2, 801, 1025, 2]), MANIFEST, "voice")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "audio"},
        {"datatype": "FP16"},
        {"shape": [-1, 2, -1, 2049, 2]},
        {"shape": [-1, 2, -1, 1025]},
        {"shape": [-1, 1, -1, 1025, 2]},
        {"shape": "many"},
        {"shape": None},
    ],
)
def test_a_server_with_other_tensors_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="'voice' must have the inputs .* of voice, as FP32; got"):
        require_tensors(metadata(**changes), MANIFEST, "voice")


@pytest.mark.parametrize("answer", [{}, {"inputs": 3}, {"inputs": [1]}, {"inputs": [{}]}])
def test_an_answer_that_is_no_metadata_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="must have the inputs"):
        require_tensors(answer, MANIFEST, "voice")
