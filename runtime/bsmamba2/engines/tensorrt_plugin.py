"""The scan as a TensorRT plugin: the compiled CUDA kernels, launched on TensorRT's own stream.

TensorRT calls Python for each scan, and the native library launches the kernels of
``cuda_kernels``, as it does for ONNX Runtime. A plugin compiled into the engine (``aot_impl``) can
only be one launch of one kernel on bare pointers; a scan is three launches with buffers between.

Source: ``tensorrt.plugin`` of TensorRT 10.7 and later. TensorRT-RTX has no plugins in Python.
"""

import ctypes
import importlib
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsmamba2.devices import cuda, kernel
from bsmamba2.errors import DeviceError

PLUGIN = "bsmamba2::mamba2_scan"
VERSION = "1"  # TensorRT gives this version to every such plugin
TENSORS = (
    "zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A_log", "D", "norm_weight", "conv_state",
    "ssm_state",
)  # fmt: skip
ATTRIBUTES = {
    "head_dim": NDArray[np.int64],
    "state_size": NDArray[np.int64],
    "reverse": NDArray[np.int64],
    "epsilon": NDArray[np.float32],
}
"""Arrays of one number: with NumPy 2.4, plain numbers fail in TensorRT's code."""


@cache
def register() -> ctypes.CDLL:
    """Registers the plugin with TensorRT, once per process, and returns the native library.

    Call it before a network with scans is parsed and before an engine with scans is loaded.

    Raises:
        DeviceError: this TensorRT has no Python plugins, or the native library is not installed.
    """
    try:
        plugin = importlib.import_module("tensorrt.plugin")
        types = importlib.import_module("tensorrt").DataType
    except (ImportError, AttributeError) as error:
        raise DeviceError(
            f"this TensorRT has no plugins in Python ({error}): build the engine without plugin, "
            "or run: pip install -U tensorrt-cu13"
        ) from None
    path = kernel.library()
    if path is None:
        raise DeviceError(
            "the plugin needs the native library, which is not installed: build the engine without "
            "plugin, or see bsmamba2 doctor"
        )
    library = cuda.load(path)
    kinds = {types.FLOAT: "fp32", types.HALF: "fp16", types.BF16: "bf16"}

    def describe(  # the parameters have the names of the node's inputs and attributes
        zxbcdt: Any, conv_weight: Any, conv_bias: Any, dt_bias: Any, A_log: Any, D: Any,
        norm_weight: Any, conv_state: Any, ssm_state: Any,
        head_dim: Any, state_size: Any, reverse: Any, epsilon: Any,
    ) -> Any:  # fmt: skip
        sizes = plugin.ShapeExprs(3)
        sizes[0], sizes[1] = zxbcdt.shape_expr[0], zxbcdt.shape_expr[1]
        sizes[2] = norm_weight.shape_expr[0]
        y = zxbcdt.like()
        y.shape_expr = sizes
        return y

    def run(  # type: ignore[no-untyped-def]
        zxbcdt, conv_weight, conv_bias, dt_bias, A_log, D, norm_weight, conv_state, ssm_state,
        state_size, reverse, epsilon, outputs, stream,
    ):  # TensorRT would check annotations # fmt: skip
        tensors = (
            zxbcdt, conv_weight, conv_bias, dt_bias, A_log, D, norm_weight, conv_state, ssm_state,
        )  # fmt: skip
        batch, length, columns = zxbcdt.shape
        dt_columns = columns - 2 * (norm_weight.shape[0] + int(state_size.flat[0]))
        call = cuda.Call(
            batch, length, A_log.shape[0], conv_state.shape[0], ssm_state.shape[0],
            int(reverse.flat[0]), dt_columns, float(epsilon.flat[0]),
            *(tensor.data_ptr for tensor in tensors), outputs[0].data_ptr, None, None,
        )  # fmt: skip
        cuda.scan(library, call, kinds[zxbcdt.dtype], int(state_size.flat[0]), stream)

    # TensorRT reads the types from annotations, and accepts no strings for them.
    known: dict[str, Any] = dict.fromkeys(TENSORS, plugin.TensorDesc)
    describe.__annotations__ = known | ATTRIBUTES | {"return": plugin.TensorDesc}
    plugin.register(PLUGIN)(describe)
    plugin.impl(PLUGIN)(run)
    return library
