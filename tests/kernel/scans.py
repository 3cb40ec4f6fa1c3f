"""One call of an operator, its meaning in float64, and a model of that single node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = (
    "zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A_log", "D", "norm_weight", "conv_state",
    "ssm_state",
)  # fmt: skip
OUTPUTS = ("y", "conv_state_out", "ssm_state_out")
MIXER_INPUTS = ("u", "in_weight", *INPUTS[1:], "out_weight")
# A program that loads a library and does no more.
REGISTER = "import onnxruntime as o; o.SessionOptions().register_custom_ops_library('{}')"


@dataclass(frozen=True)
class Scan:
    """Inputs and attributes, of a scan or of a mixer."""

    tensors: dict[str, np.ndarray]
    head_dim: int
    state_size: int
    reverse: int = 0
    epsilon: float = 1e-5

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def but(self, **changes: np.ndarray) -> Scan:
        """The same call with other tensors."""
        return replace(self, tensors={**self.tensors, **changes})


def random_scan(
    batch=2, length=70, heads=2, head_dim=8, state_size=8, taps=4, reverse=0, seed=0, states=None
) -> Scan:
    """Ordinary values. ``states``: None for the full batch, 1 for one for all, 0 for zero."""
    rng = np.random.default_rng(seed)
    inner, channels = heads * head_dim, heads * head_dim + 2 * state_size
    kept, scale = (1, 1) if states == 1 else (batch, 1) if states is None else (1, 0)
    shapes = {
        "zxbcdt": (batch, length, inner + channels + heads),
        "conv_weight": (channels, 1, taps),
        "conv_bias": (channels,),
        "dt_bias": (heads,),
        "A_log": (heads,),
        "D": (heads,),
        "norm_weight": (inner,),
        "conv_state": (kept, channels, taps - 1),
        "ssm_state": (kept, heads, head_dim, state_size),
    }
    tensors = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    tensors["conv_weight"] *= 0.5
    tensors["dt_bias"] -= 2
    tensors["A_log"] = np.linspace(0, np.log(16), heads, dtype=np.float32)
    tensors["conv_state"] *= scale
    tensors["ssm_state"] *= scale
    return Scan(tensors, head_dim, state_size, reverse)


def random_mixer(width=24, **sizes) -> Scan:
    """A scan whose tokens come from a product with in_weight, and go into one with out_weight."""
    scan = random_scan(**sizes)
    rng = np.random.default_rng(1)
    batch, length, row = scan["zxbcdt"].shape
    inner = len(scan["norm_weight"])
    tensors = {
        "u": rng.standard_normal((batch, length, width)),
        "in_weight": rng.standard_normal((row, width)) / np.sqrt(width),
        **{name: scan[name] for name in INPUTS[1:]},
        "out_weight": rng.standard_normal((width, inner)) / np.sqrt(inner),
    }
    return replace(scan, tensors={n: v.astype(np.float32) for n, v in tensors.items()})


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def recurrence(scan: Scan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the operator means, step by step in float64: y and both states."""
    given = {name: tensor.astype(np.float64) for name, tensor in scan.tensors.items()}
    tokens = given["zxbcdt"][:, :: -1 if scan.reverse else 1]
    batch, length, _ = tokens.shape
    heads, N, taps = len(given["A_log"]), scan.state_size, given["conv_weight"].shape[2]
    inner = heads * scan.head_dim
    z, xbc, dt = np.split(tokens, [inner, 2 * inner + 2 * N], axis=-1)

    before = np.broadcast_to(given["conv_state"], (batch, *given["conv_state"].shape[1:]))
    fed = np.concatenate([before.transpose(0, 2, 1), xbc], axis=1)
    taken = (fed[:, k : k + length] * given["conv_weight"][:, 0, k] for k in range(taps))
    x, B, C = np.split(silu(sum(taken) + given["conv_bias"]), [inner, inner + N], axis=-1)
    x = x.reshape(batch, length, heads, scan.head_dim)

    delta = np.logaddexp(0, dt + given["dt_bias"])
    decay = np.exp(-delta * np.exp(given["A_log"]))
    h = np.broadcast_to(given["ssm_state"], (batch, *given["ssm_state"].shape[1:]))
    y = np.empty_like(x)
    for t in range(length):
        written = (delta[:, t, :, None] * x[:, t])[..., None] * B[:, t, None, None, :]
        h = decay[:, t, :, None, None] * h + written
        y[:, t] = np.einsum("bhpn,bn->bhp", h, C[:, t])

    y = (y + given["D"][:, None] * x).reshape(batch, length, inner) * silu(z)
    y = y / np.sqrt(np.mean(y**2, axis=-1, keepdims=True) + scan.epsilon) * given["norm_weight"]
    conv_state = fed[:, length:].transpose(0, 2, 1)
    return y[:, :: -1 if scan.reverse else 1], conv_state, h


def mixed(mixer: Scan) -> np.ndarray:
    """What a mixer means, in float64."""
    given = {name: tensor.astype(np.float64) for name, tensor in mixer.tensors.items()}
    scan = {name: given[name] for name in INPUTS[1:]}
    tokens = given["u"] @ given["in_weight"].T
    y, _, _ = recurrence(replace(mixer, tensors={"zxbcdt": tokens, **scan}))
    return y @ given["out_weight"].T


def model(
    outputs=OUTPUTS, kind=TensorProto.FLOAT, name="mamba2_scan", inputs=INPUTS, **attributes
) -> bytes:
    """A graph of one node, with no shapes, so that what comes at run time is what is checked."""
    node = helper.make_node(name, inputs, outputs, domain="bsmamba2", **attributes)
    given, made = (
        [
            helper.make_tensor_value_info(
                n, kind if n in (inputs[0], "y") else TensorProto.FLOAT, None
            )
            for n in names
            if n
        ]
        for names in (inputs, outputs)
    )
    graph = helper.make_graph([node], "scan", given, made)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("bsmamba2", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def session(library: Path, proto: bytes, threads=2) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors come back as exceptions
    options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])


def run(library: Path, scan: Scan, threads=2, outputs=OUTPUTS) -> list[np.ndarray]:
    """The kernel's answer, through ONNX Runtime."""
    attributes = {
        "head_dim": scan.head_dim,
        "state_size": scan.state_size,
        "reverse": scan.reverse,
        "epsilon": scan.epsilon,
    }
    if "u" in scan.tensors:
        proto = model(("y",), name="mamba2_mixer", inputs=MIXER_INPUTS, **attributes)
    else:
        kind = helper.np_dtype_to_tensor_dtype(scan["zxbcdt"].dtype)
        proto = model(outputs, kind, **attributes)
    return session(library, proto, threads).run(None, scan.tensors)


def snr_db(wanted: np.ndarray, got: np.ndarray) -> float:
    """Signal over error; infinite where nothing is off, minus infinite where NaN came."""
    assert wanted.shape == got.shape, f"wanted {wanted.shape}, got {got.shape}"
    error = np.sum(np.square(wanted - got, dtype=np.float64))
    if error == 0:
        return np.inf
    power = np.sum(np.square(wanted, dtype=np.float64))
    return float(10 * np.log10(power / error)) if np.isfinite(error) and power else -np.inf
