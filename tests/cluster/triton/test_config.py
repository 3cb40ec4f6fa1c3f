"""``config.pbtxt``, parsed with Triton's own schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import Manifest
from bsmamba2_cluster.triton.config import (
    MANIFEST_PARAMETER,
    STREAMING_PARAMETER,
    STREAMS,
    ModelConfig,
)
from bsmamba2_cluster.triton.onnx_graph import Tensor
from support.kserve import read_config

INPUTS = [Tensor("spectrum", (-1, 2, -1, 1025, 2))]
OUTPUTS = [Tensor("stems", (-1, 1, 2, -1, 1025, 2))]


@pytest.fixture(scope="module")
def configs(repository: Path) -> dict[str, Any]:
    """The parsed configurations of the repository, by the names of their folders."""
    paths = repository.glob("*/config.pbtxt")
    return {path.parent.name: read_config(path.read_text()) for path in paths}


def test_each_model_has_the_name_of_its_folder(configs: dict[str, Any]) -> None:
    assert {name: config.name for name, config in configs.items()} == {
        name: name for name in ("tiny", "tiny_streaming", "gain")
    }


def test_chunks_are_audio_in_batches_and_one_instance_runs_them(configs: dict[str, Any]) -> None:
    tiny = configs["tiny"]
    assert (tiny.backend, tiny.max_batch_size) == ("onnxruntime", 4)
    assert [(t.name, list(t.dims)) for t in tiny.input] == [("waveform", [2, -1])]
    assert [(t.name, list(t.dims)) for t in tiny.output] == [("stems", [1, 2, -1])]
    assert tiny.HasField("dynamic_batching")
    assert [(group.count, group.kind) for group in tiny.instance_group] == [(1, 0)]


def test_a_request_can_be_dropped_after_its_clients_deadline(configs: dict[str, Any]) -> None:
    policy = configs["tiny"].dynamic_batching.default_queue_policy
    assert (policy.timeout_action, policy.allow_timeout_override) == (0, True)


def test_a_stream_keeps_every_state_of_the_manifest_from_zeros(configs: dict[str, Any]) -> None:
    config = configs["tiny_streaming"]
    manifest = Manifest.from_json(config.parameters[MANIFEST_PARAMETER].string_value)
    batching = config.sequence_batching
    assert [
        (state.input_name, state.output_name, tuple(state.dims)) for state in batching.state
    ] == [(state.name, f"next_{state.name}", state.shape) for state in manifest.states]
    for state in batching.state:
        (initial,) = state.initial_state
        assert (initial.zero_data, initial.dims) == (True, state.dims)
    assert batching.oldest.max_candidate_sequences == STREAMS


def test_a_stream_has_complete_shapes_and_no_states_among_its_tensors(
    configs: dict[str, Any],
) -> None:
    config = configs["tiny_streaming"]
    assert config.max_batch_size == 0
    assert [(t.name, list(t.dims)) for t in config.input] == [
        (name, [-1, 2, -1, 1025, 2]) for name in ("block", "lookahead")
    ]
    assert [t.name for t in config.output] == ["block_stems", "lookahead_stems"]


def test_the_manifest_travels_as_a_file_and_as_a_parameter(
    repository: Path, configs: dict[str, Any]
) -> None:
    for name, config in configs.items():
        stated = config.parameters[MANIFEST_PARAMETER].string_value
        assert (repository / name / "manifest.json").read_text().strip() == stated
        assert Manifest.from_json(stated).to_json() == stated


def test_the_chunks_name_the_model_of_the_streams(configs: dict[str, Any]) -> None:
    assert configs["tiny"].parameters[STREAMING_PARAMETER].string_value == "tiny_streaming"
    assert STREAMING_PARAMETER not in configs["gain"].parameters


def test_a_graph_of_a_fixed_batch_is_not_batched() -> None:
    inputs = [Tensor("spectrum", (1, 2, 431, 1025, 2))]
    outputs = [Tensor("stems", (1, 1, 2, 431, 1025, 2))]
    config = read_config(ModelConfig("one", Manifest("one"), inputs, outputs, batch=8).text())
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert list(config.input[0].dims) == [1, 2, 431, 1025, 2]


def test_the_kernels_run_on_a_cpu_from_the_path_on_the_server() -> None:
    path = "/models/one/1/libbsmamba2_ort.so"
    config = read_config(ModelConfig("one", Manifest("one"), INPUTS, OUTPUTS, library=path).text())
    assert list(config.model_operations.op_library_filename) == [path]
    assert [group.kind for group in config.instance_group] == [2]  # KIND_CPU


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=40))
def test_any_text_in_a_manifest_reaches_the_client_unchanged(licence: str) -> None:
    manifest = Manifest("one", licence=licence)
    config = read_config(ModelConfig("one", manifest, INPUTS, OUTPUTS).text())
    stated = config.parameters[MANIFEST_PARAMETER].string_value
    assert Manifest.from_json(stated) == manifest
