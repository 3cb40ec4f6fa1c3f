"""A graph whose work has no bound is refused before ONNX Runtime loads it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from bsmamba2 import ModelError
from bsmamba2.formats.onnx_nodes import MAX_OPERATORS, require_bounded
from bsmamba2.models.graph import shipped_graphs
from bsmamba2.models.open_model import open_model
from support.models import gain_model

OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("d", 1)]


def function(name: str, *calls: str) -> FunctionProto:
    """A function from x to y that calls others one after the other."""
    nodes = [
        helper.make_node(call, ["x" if k == 0 else f"t{k}"], [f"t{k + 1}"], domain="d")
        for k, call in enumerate(calls)
    ]
    nodes.append(helper.make_node("Neg", [f"t{len(calls)}" if calls else "x"], ["y"]))
    return helper.make_function("d", name, ["x"], ["y"], nodes, OPSETS)


def model(*functions: FunctionProto, nodes: list[NodeProto] | None = None) -> ModelProto:
    """The model of ``gain_model``, followed by the last function."""
    result = onnx.load_from_string(gain_model())
    name = functions[-1].name if functions else "Neg"
    own = [helper.make_node(name, ["stems"], ["y"], domain="d" if functions else "")]
    result.graph.node.extend(own if nodes is None else nodes)
    result.functions.extend(functions)
    return result


def graph() -> GraphProto:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_graph([helper.make_node("Neg", ["stems"], ["y"])], "inner", [], [value])


def loops() -> dict[str, ModelProto]:
    inner = graph()
    nodes = {
        "Loop": helper.make_node("Loop", ["n", "c", "stems"], ["y"], body=inner),
        "If": helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
        "Scan": helper.make_node("Scan", ["stems"], ["y"], body=inner, num_scan_inputs=1),
        "SequenceMap": helper.make_node("SequenceMap", ["s"], ["y"], body=inner),
    }
    models = {name: model(nodes=[node]) for name, node in nodes.items()}
    hidden = helper.make_function("d", "f", ["x"], ["y"], [nodes["Loop"]], OPSETS)
    return models | {"a loop in a function": model(hidden)}


def doubling(levels: int) -> list[FunctionProto]:
    calls = [function("f0")]
    return calls + [function(f"f{k}", f"f{k - 1}", f"f{k - 1}") for k in range(1, levels)]


def save(path: Path, content: ModelProto) -> Path:
    path.write_bytes(content.SerializeToString())
    return path


@pytest.mark.parametrize(("name", "content"), loops().items(), ids=list(loops()))
def test_an_operator_that_contains_a_graph_is_refused(
    tmp_path: Path, name: str, content: ModelProto
) -> None:
    with pytest.raises(ModelError, match="contains a loop or a branch"):
        open_model(save(tmp_path / "m.onnx", content))


def test_functions_that_multiply_are_refused(tmp_path: Path) -> None:
    require_bounded(save(tmp_path / "m.onnx", model(*doubling(9))))
    with pytest.raises(ModelError, match=r"more than 20,000 operators"):
        require_bounded(save(tmp_path / "m.onnx", model(*doubling(40))))


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    for functions in ([function("f", "f")], [function("g", "f"), function("f", "g")]):
        with pytest.raises(ModelError, match="without end"):
            require_bounded(save(tmp_path / "m.onnx", model(*functions)))


def test_a_chain_of_functions_without_end_is_refused(tmp_path: Path) -> None:
    chain = [function(f"f{k}", *([f"f{k - 1}"] if k else [])) for k in range(2000)]
    with pytest.raises(ModelError, match="too deeply"):
        require_bounded(save(tmp_path / "m.onnx", model(*chain)))


@pytest.mark.parametrize("place", ["initialiser", "attribute", "attribute in a function"])
def test_a_sparse_tensor_is_refused(tmp_path: Path, place: str) -> None:
    values, indices = helper.make_tensor("s", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [5])
    sparse = helper.make_sparse_tensor(values, indices, [1 << 40])
    node = helper.make_node("Constant", [], ["y"], sparse_value=sparse)
    content = model(nodes=[node] if place == "attribute" else None)
    if place == "initialiser":
        content.graph.sparse_initializer.append(sparse)
    elif place == "attribute in a function":
        content.functions.append(helper.make_function("d", "f", [], ["y"], [node], OPSETS))
    with pytest.raises(ModelError, match="contains a sparse tensor"):
        open_model(save(tmp_path / "m.onnx", content))


def test_every_shipped_graph_is_within_half_of_the_bound() -> None:
    for file in shipped_graphs():
        require_bounded(file.path)
        assert len(onnx.load(file.path, load_external_data=False).graph.node) < MAX_OPERATORS / 2
