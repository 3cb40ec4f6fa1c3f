"""Lower precisions: narrow products in an otherwise float32 graph, and narrow weights on disk.

Everything that is sensitive to rounding stays in float32: norms, Δ·A, sums, states, and the
residual stream that the blocks add to. Most of the time is spent in the products of tokens with
weights, so only these change: their inputs, weights and results are rounded, and the values between
in_proj, the scan and out_proj stay narrow.

The error is measured by emulation: float32 products of rounded values. Running a narrow graph on a
CPU would underestimate it, because ONNX Runtime widens the products there and drops the rounding
between them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bsmamba2.audio import fourier
from bsmamba2.errors import ModelError
from bsmamba2_export.operators import NARROW
from bsmamba2_network.families import Network

KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
MINIMUM_SNR_DB = {"fp32": 90.0, "fp16": 20.0, "bf16": 20.0}
"""A graph below this minimum is faulty, and the export fails.

Float32 itself agrees to about 115 dB. Untrained networks reach 60 dB in fp16 and 42 dB in bf16. For
a trained network the export reports the cost but does not fail because of it.
"""

MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Gather", "Identity")
"""Nodes that move the values of their first input."""
RESHAPES = (*MOVES, "Concat", "Split")
ARITHMETIC = ("Add", "Mul", "MatMul", "Pad")
"""Nodes that may stand between weights and their product."""

LARGEST = {"fp16": 65504.0, "bf16": 3.3895314e38}


def lower(model: ModelProto, precision: str, *, emulate: bool = False) -> None:
    """Makes a graph's products narrow, in place; ``fp32`` does not change it.

    Args:
        model: a traced model without mixer nodes, which are float32 only.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        emulate: whether to use float32 products of rounded values, which give a GPU's results on
            any machine, apart from the order of sums.

    Raises:
        ModelError: a weight is too large for the precision.
    """
    if precision == "fp32":
        return
    graph, kind = model.graph, KINDS[precision]
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    products = _products(model)
    nodes: list[NodeProto] = []
    narrow: dict[str, str] = {}
    results: set[str] = set()
    """The values that nodes return narrow."""

    def narrow_inputs(node: NodeProto) -> tuple[int, ...]:
        """Returns which inputs of a node are narrow."""
        if node.output[0] in products:
            return (0,) if products[node.output[0]].is_stored else (0, 1)
        if node.op_type in NARROW:
            return NARROW[node.op_type][0]
        return (0,) if carries(node) else ()

    def carries(node: NodeProto) -> bool:
        """Returns whether a node only moves values that are narrow before or after it."""
        if node.op_type not in MOVES or node.output[0] not in readers:
            return False
        return node.input[0] in results or is_read_narrow(node.output[0])

    def is_read_narrow(name: str) -> bool:
        return all(
            at in narrow_inputs(reader)
            for reader in readers[name]
            for at, read in enumerate(reader.input)
            if read == name
        )

    def cast(source: str, to: int, result: str) -> str:
        nodes.append(helper.make_node("Cast", [source], [result], f"cast_{result}", to=to))
        return result

    def narrowed(source: str) -> str:
        """Returns the name of the value, rounded for a product."""
        if source not in narrow:
            narrow[source] = cast(source, kind, f"{source}.{precision}")
            if emulate:
                narrow[source] = cast(narrow[source], TensorProto.FLOAT, f"{source}.rounded")
        return narrow[source]

    for node in graph.node:
        places = narrow_inputs(node)
        if not places:
            nodes.append(node)
            continue
        for at in places:
            node.input[at] = narrowed(node.input[at])
        at = NARROW[node.op_type][1] if node.op_type in NARROW else 0
        result = node.output[at]
        node.output[at] = f"{result}.exact" if emulate else f"{result}.{precision}"
        nodes.append(node)
        if emulate:
            cast(cast(node.output[at], kind, f"{result}.{precision}"), TensorProto.FLOAT, result)
            narrow[result] = result
            continue
        narrow[result] = node.output[at]
        results.add(result)
        if not is_read_narrow(result):
            cast(node.output[at], TensorProto.FLOAT, result)
    weights = {weight.name: weight for factor in products.values() for weight in factor.weights}
    computed = {
        w.name for factor in products.values() if not factor.is_stored for w in factor.weights
    }
    for value in weights.values():
        _require_range(value, precision)
        if value.name not in computed:
            _store(value, precision, widen=emulate)
    del graph.node[:]
    graph.node.extend(nodes)


def accept_float32(model: ModelProto) -> None:
    """Changes the model to take its narrow initialisers as float32 and round them itself."""
    casts = []
    for value in model.graph.initializer:
        if value.data_type not in KINDS.values():
            continue
        narrow = f"{value.name}.rounded"
        for node in model.graph.node:
            node.input[:] = [narrow if name == value.name else name for name in node.input]
        casts.append(
            helper.make_node("Cast", [value.name], [narrow], f"cast_{narrow}", to=value.data_type)
        )
        value.data_type = TensorProto.FLOAT
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def store_half(model: ModelProto, names: Collection[str]) -> None:
    """Stores the named matrices in float16 and widens them where they are used, in place.

    Raises:
        ModelError: a weight is too large for float16.
    """
    casts = []
    for value in model.graph.initializer:
        if value.name in names and len(value.dims) > 1:
            _require_range(value, "fp16")
            _store(value, "fp16")
            wide = f"{value.name}.wide"
            for node in model.graph.node:
                for i, name in enumerate(node.input):
                    if name == value.name:
                        node.input[i] = wide
            casts.append(
                helper.make_node("Cast", [value.name], [wide], f"cast_{wide}", to=TensorProto.FLOAT)
            )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def with_half_weights(net: Network) -> Network:
    """Returns the float32 network with the matrices rounded as :func:`store_half` stores them."""
    other = copy.deepcopy(net)
    for value in other.state_dict().values():
        if value.dim() > 1:
            value.copy_(value.half())
    return other


def sdr_cost_db(snr_db: float, sdr_db: float = 11.0) -> float:
    """Estimates how much SDR an error of this SNR costs; only an evaluation measures it.

    Assumes that the errors are independent, so their energies add. The paper's network reaches an
    SDR of 11 dB on songs. The SNR is measured on noise and may be different on a song.
    """
    return 10 * math.log10(1 + 10 ** ((sdr_db - snr_db) / 10))


@dataclass(frozen=True)
class _Factor:
    """The right factor of a product."""

    weights: list[TensorProto]
    is_stored: bool
    """Whether it is these weights, reshaped and stacked. Otherwise it is computed from them when
    the model is loaded, in float32, and then rounded: rounding its parts too would cost precision.
    """


def _products(model: ModelProto) -> dict[str, _Factor]:
    """Returns the factor of each product of tokens with weights, by the product's output.

    The matrices of a Fourier transform are not weights, and products of tokens with tokens have no
    such factor.
    """
    weights = {value.name: value for value in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    products = {}
    for node in model.graph.node:
        is_transform = not {fourier.ANALYSIS, fourier.SYNTHESIS}.isdisjoint(node.input)
        if node.op_type != "MatMul" or is_transform or _factor(node.input[0], weights, makers):
            continue
        found = _factor(node.input[1], weights, makers)
        if found and found.weights:
            products[node.output[0]] = found
    return products


def _factor(
    name: str, weights: Mapping[str, TensorProto], makers: Mapping[str, NodeProto]
) -> _Factor | None:
    """Returns the weights that a value consists of; None if it depends on anything else."""
    if name in weights:
        return _Factor([weights[name]], True)
    node = makers.get(name)
    if node is None or node.op_type not in (*RESHAPES, *ARITHMETIC, "Constant"):
        return None
    parts = node.input if node.op_type in ("Concat", *ARITHMETIC) else node.input[:1]
    found = [_factor(part, weights, makers) for part in parts if part]
    if not all(found):
        return None
    stored = node.op_type not in ARITHMETIC and all(part.is_stored for part in found if part)
    return _Factor([weight for part in found if part for weight in part.weights], stored)


def _require_range(value: TensorProto, precision: str) -> None:
    """Raises ModelError if a weight is too large for a precision."""
    largest = np.abs(numpy_helper.to_array(value)).max(initial=0)
    if largest > LARGEST[precision]:
        raise ModelError(
            f"weights must be within ±{LARGEST[precision]:g} in {precision}; got "
            f"{largest:.3g} in {value.name}: export with "
            f"{'bf16 or ' if precision == 'fp16' else ''}fp32"
        )


def _store(value: TensorProto, precision: str, *, widen: bool = False) -> None:
    """Rounds a tensor in place to a precision, stored in that precision or, widened, in float32."""
    exact = numpy_helper.to_array(value)
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    small = torch.from_numpy(exact.copy()).to(kind)
    value.data_type = TensorProto.FLOAT if widen else KINDS[precision]
    value.raw_data = (
        small.float().numpy().tobytes() if widen else small.view(torch.int16).numpy().tobytes()
    )
