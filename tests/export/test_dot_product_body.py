"""The bodies of ``bsmamba2::dot_product_attention`` are PyTorch's attention."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn.functional import scaled_dot_product_attention

from bsmamba2_export import body, dot_product_body


def node_model(target: str, heads: int) -> onnx.ModelProto:
    """Returns a model of one node."""
    node = helper.make_node(dot_product_body.NAME, [*"qkv"], ["y"], domain=body.DOMAIN, heads=heads)
    *inputs, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * 4) for n in "qkvy")
    graph = helper.make_graph([node], "attention", inputs, [y])
    domains = ("", body.OPSET), (body.DOMAIN, 1), (body.CONTRIB, 1)
    return helper.make_model(
        graph,
        functions=dot_product_body.functions(target),
        opset_imports=[helper.make_opsetid(*domain) for domain in domains],
        ir_version=10,
    )


@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 3), (40, 70)])
def test_the_body_agrees_with_pytorch(target: str, queries: int, keys: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, n, 8) for n in (queries, keys, keys))
    session = onnxruntime.InferenceSession(node_model(target, heads=4).SerializeToString())
    (actual,) = session.run(None, {"q": q.numpy(), "k": k.numpy(), "v": v.numpy()})
    expected = scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(torch.from_numpy(actual), expected, rtol=1e-5, atol=1e-5)
