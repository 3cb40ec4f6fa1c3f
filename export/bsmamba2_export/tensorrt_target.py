"""The target ``tensorrt``: a verified canonical file whose scans are standard operators, in place.

TensorRT's parser knows neither the node nor functions of functions, so the bodies are inlined. What
the network computes stays the same, node by node, so what export has proven holds.
"""

from __future__ import annotations

from onnx import ModelProto, inliner

from bsmamba2.errors import ModelError
from bsmamba2.manifest import Manifest
from bsmamba2_export import artifact
from bsmamba2_export.trace import set_target


def retarget(model: ModelProto, manifest: Manifest) -> ModelProto:
    """A copy for TensorRT, with its manifest.

    Args:
        model: of target ``portable`` or ``ort``, whole chunks, its weights inside.
        manifest: the model's.

    Raises:
        ModelError: it takes the steps of a stream.
    """
    if manifest.streaming:
        raise ModelError(
            f"{manifest.name} takes the steps of a stream, not whole chunks: export it without "
            "--streaming"
        )
    made = ModelProto()
    made.CopyFrom(model)
    set_target(made, "portable")
    made = inliner.inline_local_functions(made)
    left = {node.domain for node in made.graph.node} - {"", "ai.onnx"}
    if left:
        raise ModelError(f"{manifest.name} has nodes of {', '.join(sorted(left))}: export it again")
    artifact.set_manifest(made, manifest.replace(target="tensorrt"))
    return made
