"""The targets of TensorRT, made of a verified canonical file.

TensorRT's parser knows neither the node nor functions of functions. For ``tensorrt`` all bodies are
inlined; for ``tensorrt-plugin`` the mixers are, and the scans stay nodes without a body, which the
parser takes for :mod:`bsmamba2.tensorrt_plugin`. What the network computes stays the same, node by
node, so what export has proven holds.
"""

from __future__ import annotations

from onnx import ModelProto, helper, inliner

from bsmamba2.devices import cuda
from bsmamba2.engines.tensorrt_plugin import PLUGIN, VERSION
from bsmamba2.errors import ModelError
from bsmamba2.formats.manifest import Manifest
from bsmamba2_export import artifact, body
from bsmamba2_export.trace import set_target

TARGETS = ("tensorrt", "tensorrt-plugin")


def retarget(model: ModelProto, manifest: Manifest, target: str = "tensorrt") -> ModelProto:
    """A copy for TensorRT, with its manifest.

    Args:
        model: of target ``portable`` or ``ort``, whole chunks, its weights inside.
        manifest: the model's.
        target: one of :data:`TARGETS`.

    Raises:
        ModelError: it takes the steps of a stream, or is of a size without CUDA kernels.
    """
    if manifest.streaming:
        raise ModelError(
            f"{manifest.name} takes the steps of a stream, not whole chunks: export it without "
            "--streaming"
        )
    made = ModelProto()
    made.CopyFrom(model)
    set_target(made, "portable")
    if target == "tensorrt":
        made = inliner.inline_local_functions(made)
    else:
        made = _with_plugins(made, manifest)
    kinds = {(node.domain, node.op_type) for node in made.graph.node}
    left = {domain for domain, kind in kinds if domain not in ("", "ai.onnx")}
    if target == "tensorrt-plugin" and (body.DOMAIN, body.MIXER) not in kinds:
        left -= {body.DOMAIN}
    if left:
        raise ModelError(f"{manifest.name} has nodes of {', '.join(sorted(left))}: export it again")
    artifact.set_manifest(made, manifest.replace(target=target))
    return made


def _with_plugins(model: ModelProto, manifest: Manifest) -> ModelProto:
    """The mixers inlined; the scans marked as what TensorRT's parser looks plugins up by."""
    if not cuda.has_kernels(manifest):
        raise ModelError(
            f"{manifest.name} has heads or states of a size that there are no CUDA kernels for: "
            "use the target tensorrt"
        )
    made = inliner.inline_selected_functions(model, [(body.DOMAIN, body.MIXER)])
    del made.functions[:]
    namespace = PLUGIN.partition("::")[0]
    for node in made.graph.node:
        if node.domain == body.DOMAIN:
            marks = {"plugin_namespace": namespace, "plugin_version": VERSION}
            node.attribute.extend(helper.make_attribute(*mark) for mark in marks.items())
    return made
