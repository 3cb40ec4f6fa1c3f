"""The body of ``bsmamba2::bidirectional_lstm`` is PyTorch's LSTM."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from bsmamba2_export import body, lstm_body


def node_model(lstm: nn.LSTM) -> onnx.ModelProto:
    """Returns a model of one node with an LSTM's weights."""
    weights = [
        numpy_helper.from_array(value.detach().numpy(), f"w{i}")
        for i, value in enumerate(lstm.parameters())
    ]
    names = ["x", *(value.name for value in weights)]
    node = helper.make_node(
        lstm_body.NAME, names, ["y"], domain=body.DOMAIN, hidden=lstm.hidden_size
    )
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * 3) for n in "xy")
    graph = helper.make_graph([node], "lstm", [x], [y], weights)
    imports = [helper.make_opsetid("", body.OPSET), helper.make_opsetid(body.DOMAIN, 1)]
    return helper.make_model(
        graph, functions=lstm_body.functions(), opset_imports=imports, ir_version=10
    )


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 1), (2, 7)])
def test_the_body_agrees_with_pytorch(batch: int, steps: int) -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(5, 4, batch_first=True, bidirectional=True)
    session = onnxruntime.InferenceSession(node_model(lstm).SerializeToString())
    x = torch.randn(batch, steps, 5)
    (actual,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(actual), lstm(x)[0].detach())
