"""A mock of ``tensorrt.plugin`` for one plugin, modelled on its source, in host memory.

TensorRT reads the annotations of a plugin's description, which must be types: TensorDesc or
NDArray. The implementation takes the tensors, some of the attributes by name, outputs and stream.
"""

import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np


class DataType(Enum):
    FLOAT, HALF, BF16 = range(3)


class TensorDesc:
    def __init__(self, shape: Any) -> None:
        self.shape_expr = shape

    def like(self) -> Any:
        return TensorDesc(self.shape_expr)


class Plugin:
    """The functions that were registered, called as TensorRT would call them."""

    def register(self, plugin_id: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Registers the description, as ``tensorrt.plugin.register`` does."""

        def keep(describe: Callable[..., Any]) -> Callable[..., Any]:
            signature = inspect.signature(describe)
            kinds = {name: p.annotation for name, p in signature.parameters.items()}
            self.tensors = [name for name, kind in kinds.items() if kind is TensorDesc]
            self.attributes = {
                name: typing.get_args(typing.get_args(kind)[1])[0]
                for name, kind in kinds.items()
                if typing.get_origin(kind) is np.ndarray
            }
            assert [*self.tensors, *self.attributes] == list(kinds)
            assert signature.return_annotation is TensorDesc
            self.id, self.describe = plugin_id, describe
            return describe

        return keep

    def impl(self, plugin_id: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Registers the implementation, as ``tensorrt.plugin.impl`` does."""
        assert plugin_id == self.id

        def keep(run: Callable[..., Any]) -> Callable[..., Any]:
            names = list(inspect.signature(run).parameters)
            self.used = names[len(self.tensors) : -2]
            assert names[: len(self.tensors)] == self.tensors
            assert set(self.used) <= set(self.attributes)
            assert names[-2:] == ["outputs", "stream"]
            self.run = run
            return run

        return keep

    def call(
        self,
        shapes: Sequence[tuple[int, ...]],
        addresses: Sequence[int],
        dtype: DataType,
        output: int,
        **values: float,
    ) -> Any:
        """Runs the plugin on host memory. Returns the output's shape as the plugin describes it."""
        fields = {name: np.array([values[name]], kind) for name, kind in self.attributes.items()}
        shape = self.describe(*map(TensorDesc, shapes), *fields.values()).shape_expr
        tensors = [
            SimpleNamespace(shape=s, data_ptr=a, dtype=dtype)
            for s, a in zip(shapes, addresses, strict=True)
        ]
        result = SimpleNamespace(shape=shape, data_ptr=output, dtype=dtype)
        self.run(*tensors, *(fields[name] for name in self.used), (result,), 0)
        return shape


def install() -> Plugin:
    """Installs the mock as ``tensorrt``. Returns the plugin that will be registered."""
    plugin = Plugin()
    trt: Any
    module: Any
    trt, module = types.ModuleType("tensorrt"), types.ModuleType("tensorrt.plugin")
    trt.DataType, trt.plugin = DataType, module
    module.TensorDesc, module.ShapeExprs = TensorDesc, lambda rank: [0] * rank
    module.register, module.impl = plugin.register, plugin.impl
    sys.modules |= {"tensorrt": trt, "tensorrt.plugin": module}
    return plugin
