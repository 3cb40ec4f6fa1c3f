"""``tensorrt.plugin`` as its source documents it, for one plugin; tensors lie in the host's memory.

A description is read by its annotations, which must be types: TensorDesc or NDArray. An
implementation takes the tensors, some of the attributes by their names, outputs and stream.
"""

import inspect
import sys
import types
import typing
from enum import Enum
from types import SimpleNamespace

import numpy as np


class DataType(Enum):
    FLOAT, HALF, BF16 = range(3)


class TensorDesc:
    def __init__(self, shape):
        self.shape_expr = shape

    def like(self):
        return TensorDesc(self.shape_expr)


class Plugin:
    """What was registered, and how TensorRT calls it."""

    def register(self, plugin_id):
        def keep(describe):
            known = inspect.signature(describe)
            kinds = {name: p.annotation for name, p in known.parameters.items()}
            self.tensors = [name for name, kind in kinds.items() if kind is TensorDesc]
            self.attributes = {
                name: typing.get_args(typing.get_args(kind)[1])[0]
                for name, kind in kinds.items()
                if typing.get_origin(kind) is np.ndarray
            }
            assert [*self.tensors, *self.attributes] == list(kinds)
            assert known.return_annotation is TensorDesc
            self.id, self.describe = plugin_id, describe
            return describe

        return keep

    def impl(self, plugin_id):
        assert plugin_id == self.id

        def keep(run):
            names = list(inspect.signature(run).parameters)
            self.given = names[len(self.tensors) : -2]
            assert names[: len(self.tensors)] == self.tensors
            assert set(self.given) <= set(self.attributes)
            assert names[-2:] == ["outputs", "stream"]
            self.run = run
            return run

        return keep

    def call(self, shapes, addresses, dtype, output, **values):
        """One run on the host's memory; the output's shape as the plugin describes it."""
        fields = {name: np.array([values[name]], kind) for name, kind in self.attributes.items()}
        shape = self.describe(*map(TensorDesc, shapes), *fields.values()).shape_expr
        tensors = [
            SimpleNamespace(shape=s, data_ptr=a, dtype=dtype)
            for s, a in zip(shapes, addresses, strict=True)
        ]
        made = SimpleNamespace(shape=shape, data_ptr=output, dtype=dtype)
        self.run(*tensors, *(fields[name] for name in self.given), (made,), 0)
        return shape


def install():
    """Puts it where TensorRT would be; returns the plugin to come."""
    plugin = Plugin()
    trt, module = types.ModuleType("tensorrt"), types.ModuleType("tensorrt.plugin")
    trt.DataType, trt.plugin = DataType, module
    module.TensorDesc, module.ShapeExprs = TensorDesc, lambda rank: [0] * rank
    module.register, module.impl = plugin.register, plugin.impl
    sys.modules |= {"tensorrt": trt, "tensorrt.plugin": module}
    return plugin
