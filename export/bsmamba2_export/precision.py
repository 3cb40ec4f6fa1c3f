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

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bsmamba2.audio import fourier
from bsmamba2.errors import ModelError
from bsmamba2_export.operators import TAKE_TOKENS
from bsmamba2_network.families import Network

KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
MINIMUM_SNR_DB = {"fp32": 90.0, "fp16": 20.0, "bf16": 20.0}
"""A graph below this minimum is faulty, and the export fails.

Float32 itself agrees to about 115 dB. Untrained networks reach 60 dB in fp16 and 42 dB in bf16. For
a trained network the export reports the cost but does not fail because of it.
"""

RESHAPES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Gather", "Identity", "Concat")
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

    def takes_tokens(node: NodeProto) -> bool:
        return node.op_type in TAKE_TOKENS or node.output[0] in products

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
        if not takes_tokens(node):
            nodes.append(node)
            continue
        result = node.output[0]
        node.input[0] = narrowed(node.input[0])
        node.output[0] = f"{result}.exact" if emulate else f"{result}.{precision}"
        nodes.append(node)
        if emulate:
            cast(cast(node.output[0], kind, f"{result}.{precision}"), TensorProto.FLOAT, result)
            narrow[result] = result
            continue
        narrow[result] = node.output[0]
        if not all(takes_tokens(reader) for reader in readers[result]):
            cast(node.output[0], TensorProto.FLOAT, result)
    for value in {weight.name: weight for found in products.values() for weight in found}.values():
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


def _products(model: ModelProto) -> dict[str, list[TensorProto]]:
    """Returns the weights of each product of tokens with weights, by the product's output.

    A product uses its weights directly or through nodes that reshape and stack them. The matrices
    of a Fourier transform are not weights, and products of tokens with tokens have none.
    """
    weights = {value.name: value for value in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    products = {}
    for node in model.graph.node:
        is_transform = not {fourier.ANALYSIS, fourier.SYNTHESIS}.isdisjoint(node.input)
        if node.op_type != "MatMul" or is_transform:
            continue
        found = _weights_of(node.input[1], weights, makers)
        if found:
            products[node.output[0]] = found
    return products


def _weights_of(
    name: str, weights: Mapping[str, TensorProto], makers: Mapping[str, NodeProto]
) -> list[TensorProto]:
    """Returns the weights that a value consists of; none if it is anything else."""
    if name in weights:
        return [weights[name]]
    if name not in makers or makers[name].op_type not in RESHAPES:
        return []
    node = makers[name]
    parts = node.input if node.op_type == "Concat" else node.input[:1]
    found = [_weights_of(part, weights, makers) for part in parts]
    return [weight for part in found for weight in part] if all(found) else []


def _store(value: TensorProto, precision: str, *, widen: bool = False) -> None:
    """Rounds a tensor in place to a precision, stored in that precision or, widened, in float32."""
    exact = numpy_helper.to_array(value)
    if np.abs(exact).max(initial=0) > LARGEST[precision]:
        raise ModelError(
            f"weights must be within ±{LARGEST[precision]:g} in {precision}; got "
            f"{np.abs(exact).max():.3g} in {value.name}: export with "
            f"{'bf16 or ' if precision == 'fp16' else ''}fp32"
        )
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    small = torch.from_numpy(exact.copy()).to(kind)
    value.data_type = TensorProto.FLOAT if widen else KINDS[precision]
    value.raw_data = (
        small.float().numpy().tobytes() if widen else small.view(torch.int16).numpy().tobytes()
    )
