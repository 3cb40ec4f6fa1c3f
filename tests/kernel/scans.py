"""One call of an operator, its reference in float64, and a model of that single node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INPUTS = (
    "zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A_log", "D", "norm_weight", "conv_state",
    "ssm_state",
)  # fmt: skip
OUTPUTS = ("y", "conv_state_out", "ssm_state_out")
MIXER_INPUTS = ("u", "in_weight", *INPUTS[1:], "out_weight")
# A program that only registers a library.
REGISTER = "import onnxruntime as o; o.SessionOptions().register_custom_ops_library('{}')"

Array: TypeAlias = NDArray[np.floating[Any]]
Run: TypeAlias = Callable[..., list[Array]]
"""``run(scan, threads=2, outputs=OUTPUTS)``, with :func:`run`'s library filled in."""


@dataclass(frozen=True)
class Scan:
    """Inputs and attributes of a scan or a mixer."""

    tensors: dict[str, Array]
    head_dim: int
    state_size: int
    reverse: int = 0
    epsilon: float = 1e-5

    def __getitem__(self, name: str) -> Array:
        return self.tensors[name]

    def with_tensors(self, **changes: Array) -> Scan:
        """Returns the same call with some tensors replaced."""
        return replace(self, tensors={**self.tensors, **changes})


def random_scan(
    batch: int = 2,
    length: int = 70,
    heads: int = 2,
    head_dim: int = 8,
    state_size: int = 8,
    taps: int = 4,
    reverse: int = 0,
    seed: int = 0,
    states: int | None = None,
) -> Scan:
    """Returns a scan of typical values.

    Args:
        states: None for states of the full batch, 1 for one shared state, 0 for a shared zero.
    """
    rng = np.random.default_rng(seed)
    inner, channels = heads * head_dim, heads * head_dim + 2 * state_size
    state_batch, scale = (1, 1) if states == 1 else (batch, 1) if states is None else (1, 0)
    shapes: dict[str, tuple[int, ...]] = {
        "zxbcdt": (batch, length, inner + channels + heads),
        "conv_weight": (channels, 1, taps),
        "conv_bias": (channels,),
        "dt_bias": (heads,),
        "A_log": (heads,),
        "D": (heads,),
        "norm_weight": (inner,),
        "conv_state": (state_batch, channels, taps - 1),
        "ssm_state": (state_batch, heads, head_dim, state_size),
    }
    tensors: dict[str, Array] = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    tensors["conv_weight"] *= 0.5
    tensors["dt_bias"] -= 2
    tensors["A_log"] = np.linspace(0, np.log(16), heads, dtype=np.float32)
    tensors["conv_state"] *= scale
    tensors["ssm_state"] *= scale
    return Scan(tensors, head_dim, state_size, reverse)


def random_mixer(width: int = 24, **sizes: Any) -> Scan:
    """Returns a mixer: a scan between the products with in_weight and out_weight."""
    scan = random_scan(**sizes)
    rng = np.random.default_rng(1)
    batch, length, row = scan["zxbcdt"].shape
    inner = len(scan["norm_weight"])
    tensors: dict[str, Array] = {
        "u": rng.standard_normal((batch, length, width)),
        "in_weight": rng.standard_normal((row, width)) / np.sqrt(width),
        **{name: scan[name] for name in INPUTS[1:]},
        "out_weight": rng.standard_normal((width, inner)) / np.sqrt(inner),
    }
    return replace(scan, tensors={n: v.astype(np.float32) for n, v in tensors.items()})


def silu(x: Array) -> Array:
    """Computes x times its sigmoid."""
    result: Array = x / (1 + np.exp(-x))
    return result


def recurrence(scan: Scan) -> tuple[Array, Array, Array]:
    """Computes the scan step by step in float64: y and both states."""
    inputs = {name: tensor.astype(np.float64) for name, tensor in scan.tensors.items()}
    tokens = inputs["zxbcdt"][:, :: -1 if scan.reverse else 1]
    batch, length, _ = tokens.shape
    heads, N, taps = len(inputs["A_log"]), scan.state_size, inputs["conv_weight"].shape[2]
    inner = heads * scan.head_dim
    z, xbc, dt = np.split(tokens, [inner, 2 * inner + 2 * N], axis=-1)

    before = np.broadcast_to(inputs["conv_state"], (batch, *inputs["conv_state"].shape[1:]))
    conv_input = np.concatenate([before.transpose(0, 2, 1), xbc], axis=1)
    terms = (conv_input[:, k : k + length] * inputs["conv_weight"][:, 0, k] for k in range(taps))
    x, B, C = np.split(silu(sum(terms) + inputs["conv_bias"]), [inner, inner + N], axis=-1)
    x = x.reshape(batch, length, heads, scan.head_dim)

    delta = np.logaddexp(0, dt + inputs["dt_bias"])
    decay = np.exp(-delta * np.exp(inputs["A_log"]))
    h = np.broadcast_to(inputs["ssm_state"], (batch, *inputs["ssm_state"].shape[1:]))
    y = np.empty_like(x)
    for t in range(length):
        update = (delta[:, t, :, None] * x[:, t])[..., None] * B[:, t, None, None, :]
        h = decay[:, t, :, None, None] * h + update
        y[:, t] = np.einsum("bhpn,bn->bhp", h, C[:, t])

    y = (y + inputs["D"][:, None] * x).reshape(batch, length, inner) * silu(z)
    y = y / np.sqrt(np.mean(y**2, axis=-1, keepdims=True) + scan.epsilon) * inputs["norm_weight"]
    conv_state = conv_input[:, length:].transpose(0, 2, 1)
    return y[:, :: -1 if scan.reverse else 1], conv_state, h


def mixer_reference(mixer: Scan) -> Array:
    """Computes a mixer's output in float64."""
    inputs = {name: tensor.astype(np.float64) for name, tensor in mixer.tensors.items()}
    scan = {name: inputs[name] for name in INPUTS[1:]}
    tokens = inputs["u"] @ inputs["in_weight"].T
    y, _, _ = recurrence(replace(mixer, tensors={"zxbcdt": tokens, **scan}))
    reference: Array = y @ inputs["out_weight"].T
    return reference


def model(
    attributes: Mapping[str, float],
    outputs: Sequence[str] = OUTPUTS,
    kind: int = TensorProto.FLOAT,
    name: str = "mamba2_scan",
    inputs: Sequence[str] = INPUTS,
    constants: Mapping[str, Array] | None = None,
) -> bytes:
    """Returns a graph of one node. It has no shapes, so that the kernel checks them at run time.

    ``constants`` are the inputs whose values are in the model.
    """
    constants = constants or {}
    node = helper.make_node(name, inputs, outputs, domain="bsmamba2")
    node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
    graph_inputs, graph_outputs = (
        [
            helper.make_tensor_value_info(
                n, kind if n in (inputs[0], "y") else TensorProto.FLOAT, None
            )
            for n in names
            if n and n not in constants
        ]
        for names in (inputs, outputs)
    )
    values = [numpy_helper.from_array(value, n) for n, value in constants.items()]
    graph = helper.make_graph([node], "scan", graph_inputs, graph_outputs, values)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("bsmamba2", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(proto.SerializeToString())


def session(library: Path, proto: bytes, threads: int = 2) -> onnxruntime.InferenceSession:
    """Opens a model on the CPU with the kernels of the library."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised, so they need not be logged
    options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])


def run(
    library: Path,
    scan: Scan,
    threads: int = 2,
    outputs: Sequence[str] = OUTPUTS,
    constants: Sequence[str] = (),
) -> list[Array]:
    """Runs a scan or mixer with the kernel, through ONNX Runtime.

    ``constants`` are the inputs of a mixer whose values are in the model.
    """
    fixed = {name: scan[name] for name in constants}
    fed = {name: tensor for name, tensor in scan.tensors.items() if name not in fixed}
    attributes = {
        "head_dim": scan.head_dim,
        "state_size": scan.state_size,
        "reverse": scan.reverse,
        "epsilon": scan.epsilon,
    }
    if "u" in scan.tensors:
        proto = model(attributes, ("y",), name="mamba2_mixer", inputs=MIXER_INPUTS, constants=fixed)
    else:
        kind = helper.np_dtype_to_tensor_dtype(scan["zxbcdt"].dtype)
        proto = model(attributes, outputs, kind)
    results: list[Array] = session(library, proto, threads).run(None, fed)
    return results


def snr_db(expected: Array, got: Array) -> float:
    """Returns signal over error: infinite without an error, minus infinite if `got` has a NaN."""
    assert expected.shape == got.shape, f"expected {expected.shape}; got {got.shape}"
    error = np.sum(np.square(expected - got, dtype=np.float64))
    if error == 0:
        return np.inf
    power = np.sum(np.square(expected, dtype=np.float64))
    return float(10 * np.log10(power / error)) if np.isfinite(error) and power else -np.inf
