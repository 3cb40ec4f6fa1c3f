"""The scan kernel against scans in PyTorch.

    python -m benchmarks.kernel [--library PATH]

The sizes are the paper's (16 heads of 64, 128 states) for 8 s of audio: 62 sequences of 801 tokens
on the time axis, and 801 of 62 on the band axis. The outputs of the first four sequences are
checked before anything is timed. Each round times PyTorch and every instruction set once, so that
the background load affects all of them alike; a ratio is the ratio of medians. The table also has
the scan of transformers' Mamba2, if that is installed. It is written to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import Tensor
from torch.nn.functional import conv1d, pad, silu, softplus

from benchmarks.arguments import argument_parser
from benchmarks.machine import Watch, background_load, conditions, cpu
from benchmarks.pages import RESULTS, ROOT
from bsmamba2.devices import kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Array = npt.NDArray[np.float32]

HEADS, HEAD_DIM, STATE_SIZE, TAPS, EPSILON = 16, 64, 128, 4, 1e-5
INNER = HEADS * HEAD_DIM
CHANNELS = INNER + 2 * STATE_SIZE
SHAPES = [(62, 801), (801, 62)]
ISAS = ("avx512", "avx2", "portable")
SEGMENT = 64
MIN_SNR_DB = 100
TIMES = "\N{MULTIPLICATION SIGN}"


def scan_by_segments(
    zxbcdt: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    norm_weight: Tensor,
) -> Tensor:
    """Computes the same scan from zero states in plain PyTorch, in segments of 64."""
    length = zxbcdt.shape[1]
    z, xBC, dt = zxbcdt.split([INNER, CHANNELS, HEADS], -1)
    padded = pad(xBC.transpose(1, 2), (TAPS - 1, 0))
    xBC = silu(conv1d(padded, conv_weight, conv_bias, groups=CHANNELS)).transpose(1, 2)
    x, B, C = xBC.split([INNER, STATE_SIZE, STATE_SIZE], -1)
    x = x.unflatten(-1, (HEADS, HEAD_DIM))
    delta = softplus(dt + dt_bias)
    a = delta * -A_log.exp()

    Q = min(SEGMENT, length)
    u, a, B, C = (
        pad(v, (0, 0) * (v.dim() - 2) + (0, -length % Q)).unflatten(1, (-1, Q))
        for v in (x * delta[..., None], a, B, C)
    )
    u = u.transpose(2, 3)  # (batch, segments, heads, Q, head_dim)
    total = a.transpose(2, 3).cumsum(-1)  # (batch, segments, heads, Q)
    above = torch.ones(Q, Q, dtype=torch.bool).triu(1)
    decay = (total[..., :, None] - total[..., None, :]).masked_fill_(above, -torch.inf).exp_()
    y = ((C @ B.mT)[:, :, None] * decay) @ u
    if u.shape[1] > 1:
        to_end = (total[..., -1:] - total).exp_()
        added = (u * to_end[..., None]).mT @ B[:, :, None]
        h, entering = torch.zeros_like(added[:, 0]), []
        for c in range(u.shape[1]):
            entering.append(h)
            h = h * total[:, c, :, -1].exp()[..., None, None] + added[:, c]
        y += (C[:, :, None] @ torch.stack(entering, 1).mT) * total.exp()[..., None]
    y = y.transpose(2, 3).flatten(1, 2)[:, :length] + x * D[:, None]

    y = y.flatten(2) * silu(z)
    scale = torch.rsqrt(y.square().mean(-1, keepdim=True) + EPSILON)
    normed: Tensor = y * scale * norm_weight
    return normed


def transformers_scan(*tensors: Tensor) -> Callable[[], Tensor] | None:
    """Returns the same scan by transformers' Mamba2 without CUDA; None if not installed."""
    if not importlib.util.find_spec("transformers"):
        return None
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = Mamba2Config(
        hidden_size=INNER // 4, expand=4, num_heads=HEADS, head_dim=HEAD_DIM, n_groups=1,
        state_size=STATE_SIZE, conv_kernel=TAPS, chunk_size=SEGMENT, layer_norm_epsilon=EPSILON,
    )  # fmt: skip
    mixer = Mamba2Mixer(config, layer_idx=0).eval()
    mixer.in_proj = mixer.out_proj = torch.nn.Identity()
    names = ("conv1d.weight", "conv1d.bias", "dt_bias", "A_log", "D", "norm.weight")
    mixer.load_state_dict(dict(zip(names, tensors[1:], strict=True)))
    return lambda: mixer(tensors[0])


def random_inputs(batch: int, length: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [
        torch.randn(batch, length, INNER + CHANNELS + HEADS),
        torch.randn(CHANNELS, 1, TAPS) * 0.5,
        torch.randn(CHANNELS) * 0.1,
        torch.randn(HEADS) - 3,
        torch.linspace(1, 16, HEADS).log(),
        torch.ones(HEADS),
        torch.ones(INNER),
    ]


def scan_model() -> bytes:
    """Returns an ONNX model of one scan from zero states, without outputs for the states."""
    names = ["zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A_log", "D", "norm_weight"]
    states = {"conv_state": (1, CHANNELS, TAPS - 1), "ssm_state": (1, HEADS, HEAD_DIM, STATE_SIZE)}
    node = helper.make_node(
        "mamba2_scan", [*names, *states], ["y"], domain="bsmamba2", head_dim=HEAD_DIM,
        state_size=STATE_SIZE, epsilon=EPSILON,
    )  # fmt: skip
    value = helper.make_tensor_value_info
    zeros = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, np.zeros(shape, np.float32))
        for name, shape in states.items()
    ]
    graph = helper.make_graph(
        [node],
        "scan",
        [value(name, TensorProto.FLOAT, None) for name in names],
        [value("y", TensorProto.FLOAT, None)],
        zeros,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("bsmamba2", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def kernel_run(library: Path, threads: int, inputs: list[Tensor]) -> Callable[[], Array]:
    """Returns a function that runs the kernel in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads would slow down the next process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(scan_model(), options, ["CPUExecutionProvider"])
    binding = session.io_binding()
    for declared, tensor in zip(session.get_inputs(), inputs, strict=True):
        binding.bind_cpu_input(declared.name, tensor.numpy())
    shape = [*inputs[0].shape[:2], INNER]
    y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32)
    binding.bind_ortvalue_output("y", y)

    def run() -> Array:
        session.run_with_iobinding(binding)
        return np.asarray(y.numpy())

    return run


def serve(library: Path) -> None:
    """Serves :class:`Process` in another process, with one instruction set.

    A line "batch length threads" prepares a run, checks its output and prints the SNR in dB. An
    empty line runs it and prints the seconds.
    """
    for line in sys.stdin:
        if line.strip():
            batch, length, threads = map(int, line.split())
            inputs = random_inputs(batch, length)
            run = kernel_run(library, threads, inputs)
            with torch.inference_mode():
                exact = [inputs[0][:4].double(), *(v.double() for v in inputs[1:])]
                expected = scan_by_segments(*exact).numpy()
            error = np.square(run()[:4] - expected).sum()
            print(10 * np.log10(np.square(expected).sum() / error), flush=True)
        else:
            start = time.perf_counter()
            run()
            print(time.perf_counter() - start, flush=True)


class Process:
    """:func:`serve` with one instruction set."""

    def __init__(self, library: Path, isa: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.kernel", "--library", str(library), "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "BSMAMBA2_ISA": isa}, cwd=ROOT,
        )  # fmt: skip

    def request(self, line: str = "") -> float | None:
        """Sends a line, returns the printed number; None if the instruction set is unsupported."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            print(line, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return None
        reply = self._process.stdout.readline()
        return float(reply) if reply else None

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def measure(library: Path, rounds: int) -> Iterator[str]:
    """Measures every shape and yields the lines of the table."""
    heads = [f"sequences {TIMES} tokens", "threads", "PyTorch", "transformers", *ISAS]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for batch, length in SHAPES:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            inputs = random_inputs(batch, length)
            transformers = transformers_scan(*inputs)
            if transformers:
                with torch.inference_mode():
                    got = transformers()[:4]
                    expected = scan_by_segments(inputs[0][:4], *inputs[1:])
                assert torch.allclose(got, expected, rtol=1e-3, atol=1e-4), "transformers differs"
            processes = {isa: Process(library, isa) for isa in ISAS}
            snrs = {isa: p.request(f"{batch} {length} {threads}") for isa, p in processes.items()}
            assert all(db is None or db >= MIN_SNR_DB for db in snrs.values()), snrs
            seconds: dict[str, list[float]] = {"torch": []}
            for _ in range(rounds):
                start = time.perf_counter()
                with torch.inference_mode():
                    scan_by_segments(*inputs)
                seconds["torch"].append(time.perf_counter() - start)
                if transformers:
                    start = time.perf_counter()
                    with torch.inference_mode():
                        transformers()
                    seconds.setdefault("transformers", []).append(time.perf_counter() - start)
                for isa, process in processes.items():
                    process.request()  # warm-up: after PyTorch, caches and threads are cold
                    if (elapsed_s := process.request()) is not None:
                        seconds.setdefault(isa, []).append(elapsed_s)
            for process in processes.values():
                process.end()
            medians = {name: median(times) for name, times in seconds.items()}
            cells = [
                f"{medians['torch'] / medians[isa]:.1f}{TIMES} ({medians[isa] * 1e3:.0f} ms)"
                if isa in medians
                else "not on this machine"
                for isa in ISAS
            ]
            theirs = medians.get("transformers")
            yield (
                f"| {batch} {TIMES} {length} | {threads} | {medians['torch'] * 1e3:.0f} ms | "
                + (f"{theirs * 1e3:.0f} ms | " if theirs else "not installed | ")
                + " | ".join(cells)
                + " |"
            )


def main() -> None:
    parser = argument_parser("kernel", __doc__)
    parser.add_argument(
        "--library",
        type=Path,
        default=kernel.library(),
        help="The native library. Default: the installed one.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="Default: 5.")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.library is None:
        parser.error("the native library is not installed: give the path of one with --library")
    if arguments.serve:
        serve(arguments.library)
        return
    today = datetime.date.today().isoformat()
    name = re.sub(r"\W+", "-", cpu()).strip("-").lower()
    page = RESULTS / f"kernel-{name}-{today}.md"
    lines = [
        f"# The scan kernel on {cpu()}, {today}",
        "",
        f"{HEADS} heads of {HEAD_DIM}, {STATE_SIZE} states, float32, from zero states; medians of "
        f"{arguments.rounds} rounds, each of which times every column; the first four sequences of "
        f"each output are checked to ≥ {MIN_SNR_DB} dB against float64. The columns of the "
        "instruction sets show the speed-up over the same scan in PyTorch:",
        "",
    ]
    print("\n".join(lines))
    watch = Watch()
    for line in measure(arguments.library.resolve(), arguments.rounds):
        print(line, flush=True)
        lines.append(line)
    about = conditions("as many threads as the table says", "onnxruntime", "torch")
    load = background_load(watch.background_cores())
    lines += ["", f"{about}; {load}. Written by `python -m benchmarks.kernel`.", ""]
    page.write_text("\n".join(lines))
    print(f"\n{page}")


if __name__ == "__main__":
    main()
