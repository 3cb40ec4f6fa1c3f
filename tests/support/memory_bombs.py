"""Small ONNX files that ask for gigabytes, when they are loaded or when they run."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from support.models import gain_model

BYTES = 3 << 30


def bomb(*nodes: NodeProto, **constants: Any) -> ModelProto:
    """The model of ``gain_model``, which also computes ``big`` and adds zero times its sum."""
    model = onnx.load_from_string(gain_model())
    model.graph.node.extend(nodes)
    for name, value in {**constants, "zero": np.float32(0)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    model.graph.node.extend(
        [
            helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "zero"], ["none"]),
            helper.make_node("Add", ["stems", "none"], ["y"]),
        ]
    )
    model.graph.output[0].name = "y"
    return model


def constant(n: int) -> ModelProto:
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    return bomb(helper.make_node("ConstantOfShape", ["n"], ["big"], value=one), n=[n])


def range_of(n: int) -> ModelProto:
    nodes = [
        helper.make_node("Range", ["first", "n", "step"], ["r"]),
        helper.make_node("Cast", ["r"], ["big"], to=TensorProto.FLOAT),
    ]
    return bomb(*nodes, first=0, n=n, step=1)


def at_run(n: int) -> ModelProto:
    """The shape depends on the input, so that only a run computes it."""
    nodes = [
        helper.make_node("Shape", ["stems"], ["batch"], start=0, end=1),
        helper.make_node("Mul", ["batch", "n"], ["shape"]),
        helper.make_node("Expand", ["factor", "shape"], ["big"]),
    ]
    return bomb(*nodes, n=[n])


def product(n: int) -> ModelProto:
    """Every sample times every other: the size depends on no stated number."""
    nodes = [
        helper.make_node("Reshape", ["stems", "column"], ["p"]),
        helper.make_node("Reshape", ["stems", "row"], ["q"]),
        helper.make_node("MatMul", ["p", "q"], ["big"]),
    ]
    return bomb(*nodes, column=[-1, 1], row=[1, -1])


def growing() -> bytes:
    """Every 64th sample times every other: a second takes 0.2 GB, eight seconds take 10 GB."""
    nodes = [
        helper.make_node("Reshape", ["stems", "flat"], ["all"]),
        helper.make_node("Slice", ["all", "first", "last", "axis", "step"], ["few"]),
        helper.make_node("Reshape", ["few", "column"], ["p"]),
        helper.make_node("Reshape", ["few", "row"], ["q"]),
        helper.make_node("MatMul", ["p", "q"], ["big"]),
    ]
    shapes = {"flat": [-1], "column": [-1, 1], "row": [1, -1]}
    slices = {"first": [0], "last": [2**62], "axis": [0], "step": [64]}
    content: bytes = bomb(*nodes, **shapes, **slices).SerializeToString()
    return content


def copies(n: int) -> ModelProto:
    """Copies of copies of the input."""
    names = ["stems", *(f"c{k}" for k in range(11)), "big"]
    nodes = [
        helper.make_node("Concat", [before] * 4, [after], axis=0)
        for before, after in itertools.pairwise(names)
    ]
    return bomb(*nodes)


def by_attribute(n: int) -> ModelProto:
    return bomb(helper.make_node("RandomNormal", [], ["big"], shape=[n]))


def stated(operator: str, *inputs: str, **constants: Any) -> Callable[[int], ModelProto]:
    return lambda n: bomb(
        helper.make_node(operator, list(inputs), ["big"]),
        **{name: np.asarray(value) * n for name, value in constants.items()},
    )


BOMBS: dict[str, Callable[[int], ModelProto]] = {
    "ConstantOfShape": constant,
    "Range": range_of,
    "Expand": stated("Expand", "factor", "n", n=[1]),
    "Tile": stated("Tile", "factor", "n", n=[1]),
    "Pad": stated("Pad", "factor", "n", n=[0, 1]),
    "Resize": stated("Resize", "factor", "", "n", n=np.ones(1, np.float32)),
    "RandomNormal": by_attribute,
    "Expand at run": at_run,
    "MatMul": product,
    "Concat": copies,
}
"""Each makes a model whose tensor ``big`` has n numbers, or more than memory."""


def memory_bomb(name: str, size: int = BYTES) -> bytes:
    """Returns a model that asks for so many bytes, or for more than memory."""
    content: bytes = BOMBS[name](size // 4).SerializeToString()
    return content
