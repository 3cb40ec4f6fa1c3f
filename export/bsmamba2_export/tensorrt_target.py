"""Derives the models for TensorRT from a verified portable model.

TensorRT's parser supports neither our nodes nor nested functions. For ``tensorrt`` all bodies are
inlined. For ``tensorrt-plugin`` the scans stay nodes without a body, which the parser maps to
:mod:`bsmamba2.engines.tensorrt_plugin`. The model still computes the same, node by node, so the
export's verification remains valid.
"""

from __future__ import annotations

from onnx import ModelProto, helper, inliner

from bsmamba2.devices import cuda
from bsmamba2.engines.tensorrt_plugin import PLUGIN, VERSION
from bsmamba2.errors import ModelError
from bsmamba2.formats.manifest import Manifest
from bsmamba2_export import artifact, body, residual_body
from bsmamba2_export.trace import inlined, set_target

TARGETS = ("tensorrt", "tensorrt-plugin")


def retarget(model: ModelProto, manifest: Manifest, target: str = "tensorrt") -> ModelProto:
    """Returns a copy for TensorRT, with its manifest.

    Args:
        model: a model for whole chunks with target ``portable`` or ``ort``, weights included.
        manifest: the model's manifest.
        target: one of :data:`TARGETS`.

    Raises:
        ModelError: the model is for steps of a stream, or there are no CUDA kernels for its sizes.
    """
    if manifest.streaming:
        raise ModelError(
            f"model must be for whole chunks; got {manifest.name}, which is for steps of a stream: "
            "export it without streaming=True"
        )
    retargeted = ModelProto()
    retargeted.CopyFrom(model)
    set_target(retargeted, "portable", manifest.precision)
    if target == "tensorrt":
        retargeted = inlined(retargeted)
    else:
        retargeted = _with_plugins(retargeted, manifest)
    kinds = {(node.domain, node.op_type) for node in retargeted.graph.node}
    unsupported = {domain for domain, kind in kinds if domain not in ("", "ai.onnx")}
    if target == "tensorrt-plugin" and (body.DOMAIN, body.MIXER) not in kinds:
        unsupported -= {body.DOMAIN}
    if unsupported:
        raise ModelError(
            f"model must have only standard nodes and scans; got {manifest.name} with nodes of "
            f"{', '.join(sorted(unsupported))}: export it again"
        )
    artifact.set_manifest(retargeted, manifest.replace(target=target))
    return retargeted


def _with_plugins(model: ModelProto, manifest: Manifest) -> ModelProto:
    """Inlines all but the scans, and marks these with the attributes that identify a plugin."""
    if not cuda.has_kernels(manifest):
        raise ModelError(
            f"model must have sizes that the CUDA kernels support; got {manifest.name}: use the "
            "target tensorrt"
        )
    if not any(node.domain == body.DOMAIN for node in model.graph.node):
        raise ModelError(
            f"model must have its scans as nodes, as in the target portable; got {manifest.name} "
            f"with the target {manifest.target}: export it again"
        )
    inlined_kinds = [(body.DOMAIN, name) for name in (body.MIXER, residual_body.NAME)]
    plugged = inliner.inline_selected_functions(model, inlined_kinds)
    del plugged.functions[:]
    namespace = PLUGIN.partition("::")[0]
    for node in plugged.graph.node:
        if node.domain == body.DOMAIN:
            marks = {"plugin_namespace": namespace, "plugin_version": VERSION}
            node.attribute.extend(helper.make_attribute(*mark) for mark in marks.items())
    return plugged
