"""Joins each scan with the products around it into one node, ``bsmamba2::mamba2_mixer``.

What lies between the projections is far wider than what goes in and comes out. A kernel for the
whole mixer never holds all of it; elsewhere the node's body is the three nodes that it replaces.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper

from bsmamba2_export import body


def join_mixers(model: ModelProto) -> None:
    """Replaces product, scan and product by the mixer, in place, wherever no state is read."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def weight(product: NodeProto) -> str:
        """The right side of a product: a checkpoint's matrix, transposed."""
        return str(makers[product.input[1]].input[0])

    mixers: dict[str, NodeProto] = {}
    gone: set[str] = set()
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
        gone |= {into.output[0], scan.output[0]}
    kept = [mixers.get(node.output[0], node) for node in graph.node if node.output[0] not in gone]
    read = {name for node in kept for name in node.input}
    kept = [node for node in kept if node.op_type != "Transpose" or node.output[0] in read]
    del graph.node[:]
    graph.node.extend(kept)
