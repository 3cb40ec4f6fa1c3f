"""Traces a network to an ONNX graph: a node per operator, initialisers named as in checkpoints.

torch.export turns the network into a graph of operators, in which the scans and attentions are our
registered ones, e.g. ``bsmamba2::mamba2_scan``. A table maps each to the ONNX node of the same
name (:mod:`bsmamba2_export.operators`). The node's body is attached afterwards, because the
exporter would inline it.
"""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnx import ModelProto, helper, inliner
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn
from torch.export import Dim

from bsmamba2.errors import ModelError
from bsmamba2_export import body, operators
from bsmamba2_export.mixer import join_mixers
from bsmamba2_export.precision import lower, store_half
from bsmamba2_export.waveform import WaveformGraph
from bsmamba2_network import BSMamba2, Config, HTDemucs
from bsmamba2_network.config import CONV_WIDTH
from bsmamba2_network.families import Network

INPUTS = "spectrum", "waveform"
OUTPUTS = "stems", "waveform_stems"
"""The names of the inputs and outputs of a graph of both, in their order."""


class SpectrumGraph(nn.Module):
    """The module that is traced for ``io="spectrum"``."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, spectrum: Tensor) -> Tensor:
        return self.net.separate_spectrum(spectrum)


class BothGraph(nn.Module):
    """The module that is traced for ``io="both"``: spectrum and waveform in, and both out."""

    def __init__(self, net: HTDemucs) -> None:
        super().__init__()
        self.net = net

    def forward(self, spectrum: Tensor, waveform: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.separate_both(spectrum, waveform)


class StreamingGraph(nn.Module):
    """The module that is traced for ``streaming=True``, with the states as a flat list."""

    def __init__(self, net: BSMamba2) -> None:
        super().__init__()
        self.net = net

    def forward(self, block: Tensor, lookahead: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        pairs = list(zip(states[::2], states[1::2], strict=True))
        *stems, pairs = self.net.step(block, lookahead, pairs)
        return (*stems, *(state for pair in pairs for state in pair))


def state_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Returns a streaming graph's states in order: their names and shapes for one mixture."""
    bands = len(config.bands)
    conv = bands, config.conv_channels, CONV_WIDTH - 1
    ssm = bands, config.heads, config.head_dim, config.state_size
    kinds = {"conv_state": conv, "ssm_state": ssm}
    return {f"{kind}_{i}": kinds[kind] for i in range(config.depth) for kind in kinds}


def trace(
    net: Network, io: str = "spectrum", target: str = "portable", *, streaming: bool = False
) -> ModelProto:
    """Returns the complete graph of a network: :func:`trace_nodes`, then :func:`finish`."""
    return finish(trace_nodes(net, io, streaming=streaming), net, target)


def trace_nodes(
    net: Network, io: str = "spectrum", *, streaming: bool = False, precision: str = "fp32"
) -> ModelProto:
    """Traces the network; a process traces each form and size once and then only fills in weights.

    Args:
        net: the network, in evaluation mode.
        io: ``spectrum``, ``waveform`` or ``both``, see :class:`bsmamba2.Manifest`.
        streaming: whether to trace one step of a stream of a BSMamba2; see ``docs/manifest.md``.
        precision: that of :func:`finish`. A waveform graph of a BSMamba2 in a lower precision has
            the form for GPUs, :mod:`bsmamba2_network.compact`.

    Returns:
        The graph with its weights, with a dynamic batch and, unless the network takes only whole
        chunks, dynamic lengths. Each of our operators is one
        node without a body.

    Raises:
        ModelError: the traced initialisers are not the network's state dict.
    """
    few_operations = io == "waveform" and precision != "fp32"
    form = net.config, io, streaming, few_operations
    if form not in _traced:
        _traced[form] = _trace(net, io, streaming, few_operations)
    model = ModelProto()
    model.CopyFrom(_traced[form])
    weights = net.state_dict()
    for value in model.graph.initializer:
        if value.name in weights:
            value.raw_data = weights[value.name].numpy().tobytes()
    return model


_traced: dict[tuple[Any, str, bool, bool], ModelProto] = {}
"""Traced graphs without weights. A trace takes up to a minute and does not depend on weights."""


def _trace(net: Network, io: str, streaming: bool, few_operations: bool) -> ModelProto:
    """Traces the network's graph and clears the weights."""
    config = net.config
    weights = net.state_dict().keys()
    inputs, outputs = [io], ["stems"]
    batch = Dim("batch")
    examples: tuple[Tensor, ...]
    axes: tuple[Any, ...]

    def noise(frames: int) -> Tensor:
        return torch.randn(2, config.channels, frames, config.bins, 2)

    if streaming:
        states = state_shapes(config)
        inputs = ["block", "lookahead", *states]
        outputs = ["block_stems", "lookahead_stems", *(f"next_{name}" for name in states)]
        assert isinstance(net, BSMamba2)
        graph: nn.Module = StreamingGraph(net)
        # A state has one row or one per sequence, so its first axis is independent of the batch.
        rows = [torch.zeros(2 * shape[0], *shape[1:]) for shape in states.values()]
        examples = noise(7), noise(5), *rows
        frames = [{0: batch, 2: Dim(name)} for name in ("block_frames", "lookahead_frames")]
        axes = *frames, tuple({0: Dim("sequences")} for _ in states)
    elif io == "both":
        assert isinstance(net, HTDemucs)
        graph, inputs, outputs = BothGraph(net), [*INPUTS], [*OUTPUTS]
        examples = noise(config.frames), torch.randn(2, config.channels, config.chunk)
        axes = {0: batch}, {0: batch}
    elif config.fixed_length:
        graph, examples, axes = SpectrumGraph(net), (noise(config.frames),), ({0: batch},)
    elif io == "spectrum":
        graph = SpectrumGraph(net)
        examples, axes = (noise(7),), ({0: batch, 2: Dim("frames")},)
    else:
        graph = WaveformGraph(net, few_operations)
        examples = (torch.randn(2, config.channels, 3 * config.n_fft),)
        axes = ({0: batch, 2: Dim("samples", min=config.bins)},)
    operators.register_schemas()
    with warnings.catch_warnings():
        # torch's exporter triggers deprecation warnings itself.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        # It also warns that several inputs share an axis, which is intended.
        warnings.filterwarnings("ignore", ".*The axis name", UserWarning)
        # And that an LSTM keeps a list of its own weights.
        warnings.filterwarnings("ignore", ".*_flat_weights", UserWarning)
        logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _unshared(graph.eval()),
            examples,
            dynamo=True,
            optimize=False,  # it would fold weights; _simplify does not
            opset_version=body.OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=axes,
            custom_translation_table=operators.TRANSLATIONS,
            verbose=False,
        )
    assert program is not None
    _simplify(program.model)
    model: ModelProto = program.model_proto
    _name_weights(model, net)
    _tidy(model)
    for value in model.graph.initializer:
        if value.name in weights:
            value.ClearField("raw_data")
    return model


def finish(
    model: ModelProto,
    net: Network,
    target: str = "portable",
    *,
    precision: str = "fp32",
    weights: str = "fp32",
    emulate: bool = False,
) -> ModelProto:
    """Completes a traced graph: sets its precision, joins mixers, attaches bodies.

    Args:
        model: the traced graph, which is changed.
        target: the target whose bodies are attached, ``portable`` or ``ort``; or ``inlined``,
            where the portable body replaces each node.
        precision, emulate: precision of the products; see :func:`bsmamba2_export.precision.lower`.
        weights: precision of the stored matrices; see :func:`bsmamba2_export.precision.store_half`.

    Raises:
        ModelError: the onnx checker rejects the graph, or a weight is too large for the precision.
    """
    lower(model, precision, emulate=emulate)
    if precision == "fp32":
        join_mixers(model)
    if weights == "fp16":
        store_half(model, net.state_dict().keys())
    bodies = "portable" if target == "inlined" else target
    set_target(model, bodies, precision, emulate=emulate)
    if target == "inlined":
        model = inlined(model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the traced graph is not valid ONNX: {error}") from None
    return model


def inlined(model: ModelProto) -> ModelProto:
    """Returns a copy in which the body of every function replaces the nodes that call it."""
    copy = inliner.inline_local_functions(model)
    used = {node.domain for node in copy.graph.node}
    imports = [entry for entry in copy.opset_import if entry.domain in used]
    del copy.opset_import[:]
    copy.opset_import.extend(imports)
    return copy


def set_target(
    model: ModelProto, target: str, precision: str = "fp32", *, emulate: bool = False
) -> None:
    """Replaces the bodies of our nodes by those of a target, in place, and changes nothing else.

    Arguments are those of :func:`finish`.
    """
    del model.functions[:]
    model.functions.extend(operators.functions(model, target, precision, emulate=emulate))
    imports = {entry.domain: entry for entry in model.opset_import}
    del model.opset_import[:]
    model.opset_import.append(imports[""])
    if model.functions:
        model.opset_import.append(helper.make_opsetid(body.DOMAIN, 1))
    if any(node.domain == body.CONTRIB for f in model.functions for node in f.node):
        model.opset_import.append(helper.make_opsetid(body.CONTRIB, 1))


def _unshared(graph: nn.Module) -> nn.Module:
    """Returns the module with a copy of its own wherever a submodule is used twice.

    The exporter would keep one name of a shared weight. With copies, each name of the checkpoint
    becomes an initialiser.
    """
    names = [name for name, _ in graph.named_modules(remove_duplicate=False)]
    if len(names) == len(list(graph.modules())):
        return graph
    # A copy of the modules with the same weights, which may be gigabytes.
    graph = copy.deepcopy(graph, {id(value): value for value in graph.parameters()})
    known: set[int] = set()
    for name in names:
        module = graph.get_submodule(name)
        if id(module) in known:
            graph.set_submodule(name, copy.deepcopy(module))
        known.add(id(module))
    return graph


def _simplify(model: ir.Model) -> None:
    """Folds shapes and merges repeated nodes; weights keep their values and names."""

    def touches_no_weight(node: ir.Node) -> bool | None:
        weights = (value is not None and value.is_initializer() for value in node.inputs)
        return False if any(weights) else None

    fold_constants(model, should_fold=touches_no_weight)
    passes.RemoveUnusedNodesPass()(model)
    passes.CommonSubexpressionEliminationPass()(model)


def _name_weights(model: ModelProto, net: Network) -> None:
    """Strips the traced module's prefix from names, and checks that every weight is present."""
    prefix = "net."
    for value in model.graph.initializer:
        value.name = value.name.removeprefix(prefix)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = name.removeprefix(prefix)
    shapes = {value.name: tuple(value.dims) for value in model.graph.initializer}
    for name, tensor in net.state_dict().items():
        if shapes.get(name) != tuple(tensor.shape):
            raise ModelError(
                f"the traced graph must have a weight {name} of shape {tuple(tensor.shape)}; got "
                f"{shapes.get(name)}: report this"
            )


def _tidy(model: ModelProto) -> None:
    """Removes the exporter's metadata, and the scans' states if they are not used."""
    used = {name for node in model.graph.node for name in node.input}
    used |= {value.name for value in model.graph.output}
    for node in model.graph.node:
        if node.op_type == body.NAME:
            if used.isdisjoint(node.output[1:]):
                del node.output[1:]
            else:
                node.overload = body.STATES
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.graph.name = "bsmamba2"
    model.ir_version = 10
    model.producer_name, model.producer_version = "bsmamba2", ""
    model.doc_string = ""
