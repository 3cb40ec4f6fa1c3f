"""The text of ``config.pbtxt``: how a Triton server runs one model.

Three kinds of model: whole chunks in ONNX Runtime, the steps of a stream in ONNX Runtime, and whole
chunks as a TensorRT plan. Field names: ``ModelConfig`` in Triton's ``model_config.proto``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bsmamba2.formats.manifest import Manifest, State
from bsmamba2_cluster.triton.onnx_graph import Tensor

MANIFEST_PARAMETER = "bsmamba2.manifest"
"""The parameter that holds the manifest, from which a client knows the model."""

STREAMING_PARAMETER = "bsmamba2.streaming"
"""The parameter that names the server's model for the steps of a stream, if there is one."""

STREAMS = 16
"""Streams whose states an instance of a streaming model keeps at the same time."""

IDLE_MICROSECONDS = 300_000_000
"""After this time without a step a stream's states are freed."""


@dataclass(frozen=True)
class ModelConfig:
    """One model of the repository.

    Tensors have their complete shapes, with the batch in front.
    """

    name: str
    manifest: Manifest
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    backend: str = "onnxruntime"
    file_name: str = "model.onnx"
    batch: int = 1
    """The most chunks of one run; not for streams."""
    library: str | None = None
    """Path, on the server, of the library with the kernels for a CPU."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Further parameters for the client."""

    def text(self) -> str:
        """Returns the text of ``config.pbtxt``."""
        states = self.manifest.states
        kept = {name for state in states for name in (state.name, f"next_{state.name}")}
        batchable = not states and all(tensor.shape[0] == -1 for tensor in self.inputs)
        lines = [
            f"name: {_quoted(self.name)}",
            f"backend: {_quoted(self.backend)}",
            f"default_model_filename: {_quoted(self.file_name)}",
            f"max_batch_size: {self.batch if batchable else 0}",
        ]
        for kind, tensors in (("input", self.inputs), ("output", self.outputs)):
            for tensor in tensors:
                if tensor.name not in kept:
                    shape = tensor.shape[1:] if batchable else tensor.shape
                    lines += _block(kind, [f"name: {_quoted(tensor.name)}", *_values(shape)])
        lines += self._scheduling(batchable)
        # By default Triton would load a model twice on a CPU. One run already uses every core.
        kind = "KIND_AUTO" if self.library is None else "KIND_CPU"
        lines += _block("instance_group", ["count: 1", f"kind: {kind}"])
        if self.library is not None:
            lines += _block("model_operations", [f"op_library_filename: {_quoted(self.library)}"])
        stated = {MANIFEST_PARAMETER: self.manifest.to_json(), **self.parameters}
        for key, value in stated.items():
            entry = [f"key: {_quoted(key)}", f"value: {{ string_value: {_quoted(value)} }}"]
            lines += _block("parameters", entry)
        return "\n".join(lines) + "\n"

    def _scheduling(self, batchable: bool) -> list[str]:
        """Chunks of one length share a run; the states of a stream stay on the server."""
        if self.manifest.streaming:
            states = [line for state in self.manifest.states for line in _state(state)]
            keep = _block("oldest", [f"max_candidate_sequences: {STREAMS}"])
            idle = f"max_sequence_idle_microseconds: {IDLE_MICROSECONDS}"
            return _block("sequence_batching", [idle, *keep, *states])
        if not batchable:
            return []
        # A request that waited longer than its client does is dropped.
        policy = ["timeout_action: REJECT", "allow_timeout_override: true"]
        return _block("dynamic_batching", _block("default_queue_policy", policy))


def _state(state: State) -> list[str]:
    """A state of one stream, which starts with zeros. Triton batches no states, so the sequences
    that a stream has in the graph are all in its shape."""
    initial = [*_values(state.shape), "zero_data: true", f"name: {_quoted(state.name)}"]
    return _block(
        "state",
        [
            f"input_name: {_quoted(state.name)}",
            f"output_name: {_quoted(f'next_{state.name}')}",
            *_values(state.shape),
            *_block("initial_state", initial),
        ],
    )


def _values(shape: Sequence[int]) -> list[str]:
    return ["data_type: TYPE_FP32", f"dims: {list(shape)}"]


def _block(name: str, lines: Iterable[str]) -> list[str]:
    return [f"{name} {{", *(f"  {line}" for line in lines), "}"]


def _quoted(text: str) -> str:
    """Returns a string of the text format, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=True)
