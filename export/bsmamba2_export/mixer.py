"""Joins each scan with the products around it into one node, ``bsmamba2::mamba2_mixer``.

The tensors between the projections are far wider than the mixer's input and output. A kernel for
the whole mixer never holds them in full. Without a kernel, the node's body is the three nodes that
it replaces.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper

from bsmamba2_export import body


def join_mixers(model: ModelProto) -> None:
    """Replaces each product, scan and product by a mixer, in place, unless its states are used."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def weight(product: NodeProto) -> str:
        """Returns the name of a product's right factor, a transposed matrix of the checkpoint."""
        return str(makers[product.input[1]].input[0])

    mixers: dict[str, NodeProto] = {}
    replaced: set[str] = set()
    for scan in graph.node:
        if scan.op_type != body.NAME or len(scan.output) > 1:
            continue
        into, (out,) = makers[scan.input[0]], readers[scan.output[0]]
        mixers[out.output[0]] = helper.make_node(
            body.MIXER,
            [into.input[0], weight(into), *scan.input[1:], weight(out)],
            out.output,
            name=scan.name.replace(body.NAME, body.MIXER),
            domain=body.DOMAIN,
        )
        mixers[out.output[0]].attribute.extend(scan.attribute)
        replaced |= {into.output[0], scan.output[0]}
    kept = [
        mixers.get(node.output[0], node) for node in graph.node if node.output[0] not in replaced
    ]
    used = {name for node in kept for name in node.input}
    used |= {value.name for value in graph.output}
    kept = [node for node in kept if node.op_type != "Transpose" or node.output[0] in used]
    del graph.node[:]
    graph.node.extend(kept)
