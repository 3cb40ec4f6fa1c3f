"""The scan kernel against chunked scans in PyTorch: python benchmarks/kernel.py [--library PATH].

At the paper's size (16 heads of 64, 128 states) and 8 s of audio: the time axis is 62 sequences of
801 tokens, the band axis 801 of 62. Answers are checked before anything is timed, on the first four
sequences. Each round times PyTorch and every instruction set in turn, so that what else the machine
does falls on all alike; a ratio is that of the medians. Beside our own scan in PyTorch stands that
of transformers' Mamba2, where it is installed. The table goes into benchmarks/results/.
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
import onnxruntime
import torch
from machine import Watch, about, busy, cpu
from onnx import TensorProto, helper
from torch import Tensor
from torch.nn.functional import conv1d, pad, silu, softplus

from bsmamba2.devices import kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADS, HEAD_DIM, STATE_SIZE, TAPS, EPSILON = 16, 64, 128, 4, 1e-5
INNER = HEADS * HEAD_DIM
CHANNELS = INNER + 2 * STATE_SIZE
SHAPES = [(62, 801), (801, 62)]
ISAS = ("avx512", "avx2", "portable")
CHUNK = 64
LEAST_DB = 100
TIMES = "\N{MULTIPLICATION SIGN}"


def chunked(
    zxbcdt: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    norm_weight: Tensor,
) -> Tensor:
    """The same scan from zero states, in plain PyTorch by chunks of 64."""
    length = zxbcdt.shape[1]
    z, xBC, dt = zxbcdt.split([INNER, CHANNELS, HEADS], -1)
    fed = pad(xBC.transpose(1, 2), (TAPS - 1, 0))
    xBC = silu(conv1d(fed, conv_weight, conv_bias, groups=CHANNELS)).transpose(1, 2)
    x, B, C = xBC.split([INNER, STATE_SIZE, STATE_SIZE], -1)
    x = x.unflatten(-1, (HEADS, HEAD_DIM))
    delta = softplus(dt + dt_bias)
    a = delta * -A_log.exp()

    Q = min(CHUNK, length)
    u, a, B, C = (
        pad(v, (0, 0) * (v.dim() - 2) + (0, -length % Q)).unflatten(1, (-1, Q))
        for v in (x * delta[..., None], a, B, C)
    )
    u = u.transpose(2, 3)  # (batch, chunks, heads, Q, head_dim)
    total = a.transpose(2, 3).cumsum(-1)  # (batch, chunks, heads, Q)
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
    return y * torch.rsqrt(y.square().mean(-1, keepdim=True) + EPSILON) * norm_weight


def of_transformers(*given: Tensor) -> Callable[[], Tensor] | None:
    """The same scan by transformers' Mamba2 without CUDA, or None where it is not installed."""
    if not importlib.util.find_spec("transformers"):
        return None
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = Mamba2Config(
        hidden_size=INNER // 4, expand=4, num_heads=HEADS, head_dim=HEAD_DIM, n_groups=1,
        state_size=STATE_SIZE, conv_kernel=TAPS, chunk_size=CHUNK, layer_norm_epsilon=EPSILON,
    )  # fmt: skip
    mixer = Mamba2Mixer(config, layer_idx=0).eval()
    mixer.in_proj = mixer.out_proj = torch.nn.Identity()
    names = ("conv1d.weight", "conv1d.bias", "dt_bias", "A_log", "D", "norm.weight")
    mixer.load_state_dict(dict(zip(names, given[1:], strict=True)))
    return lambda: mixer(given[0])


def inputs(batch: int, length: int) -> list[Tensor]:
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


def one_node() -> bytes:
    """A model of the scan alone, from zero states, whose states nobody reads."""
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


def kernel_run(library: Path, threads: int, given: list[Tensor]) -> Callable[[], np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait busily for the next node would slow down whoever runs next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(one_node(), options, ["CPUExecutionProvider"])
    binding = session.io_binding()
    for declared, tensor in zip(session.get_inputs(), given, strict=True):
        binding.bind_cpu_input(declared.name, tensor.numpy())
    shape = [*given[0].shape[:2], INNER]
    y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32)
    binding.bind_ortvalue_output("y", y)

    def run() -> np.ndarray:
        session.run_with_iobinding(binding)
        return np.asarray(y.numpy())

    return run


def serve(library: Path) -> None:
    """A process with one instruction set: for each line "batch length threads" a runner is made and
    its answer checked; each further empty line runs it and answers with the seconds it took."""
    for line in sys.stdin:
        if line.strip():
            batch, length, threads = map(int, line.split())
            given = inputs(batch, length)
            run = kernel_run(library, threads, given)
            with torch.inference_mode():
                wanted = chunked(given[0][:4].double(), *(v.double() for v in given[1:])).numpy()
            error = np.square(run()[:4] - wanted).sum()
            print(10 * np.log10(np.square(wanted).sum() / error), flush=True)
        else:
            started = time.perf_counter()
            run()
            print(time.perf_counter() - started, flush=True)


class Process:
    """:func:`serve` under one instruction set; None of it where this machine lacks that."""

    def __init__(self, library: Path, isa: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--library", str(library), "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "BSMAMBA2_ISA": isa},
        )  # fmt: skip

    def ask(self, line: str = "") -> float | None:
        assert self.process.stdin
        assert self.process.stdout
        try:
            print(line, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            return None
        answer = self.process.stdout.readline()
        return float(answer) if answer else None


def measure(library: Path, rounds: int) -> Iterator[str]:
    heads = [f"sequences {TIMES} tokens", "threads", "PyTorch", "transformers", *ISAS]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for batch, length in SHAPES:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            given = inputs(batch, length)
            other = of_transformers(*given)
            if other:
                with torch.inference_mode():
                    found, wanted = other()[:4], chunked(given[0][:4], *given[1:])
                assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4), "transformers differs"
            processes = {isa: Process(library, isa) for isa in ISAS}
            answers = {isa: p.ask(f"{batch} {length} {threads}") for isa, p in processes.items()}
            assert all(db is None or db >= LEAST_DB for db in answers.values()), answers
            seconds: dict[str, list[float]] = {"torch": []}
            for _ in range(rounds):
                started = time.perf_counter()
                with torch.inference_mode():
                    chunked(*given)
                seconds["torch"].append(time.perf_counter() - started)
                if other:
                    started = time.perf_counter()
                    with torch.inference_mode():
                        other()
                    seconds.setdefault("transformers", []).append(time.perf_counter() - started)
                for isa, process in processes.items():
                    process.ask()  # the first run after PyTorch finds cold caches and threads
                    if (taken := process.ask()) is not None:
                        seconds.setdefault(isa, []).append(taken)
            for process in processes.values():
                process.process.kill()
                process.process.communicate()
            middle = {name: median(taken) for name, taken in seconds.items()}
            cells = [
                f"{middle['torch'] / middle[isa]:.1f}{TIMES} ({middle[isa] * 1e3:.0f} ms)"
                if isa in middle
                else "none here"
                for isa in ISAS
            ]
            theirs = middle.get("transformers")
            yield (
                f"| {batch} {TIMES} {length} | {threads} | {middle['torch'] * 1e3:.0f} ms | "
                + (f"{theirs * 1e3:.0f} ms | " if theirs else "not installed | ")
                + " | ".join(cells)
                + " |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path, default=kernel.library())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.library is None:
        parser.error("the kernel is not installed; --library names one that was built elsewhere")
    if asked.serve:
        return serve(asked.library)
    today = datetime.date.today().isoformat()
    name = re.sub(r"\W+", "-", cpu()).strip("-").lower()
    page = Path(__file__).parent / "results" / f"kernel-{name}-{today}.md"
    lines = [
        f"# The scan kernel on {cpu()}, {today}",
        "",
        f"{HEADS} heads of {HEAD_DIM}, {STATE_SIZE} states, float32, from zero states; medians of "
        f"{asked.rounds} rounds, taken in turn; four sequences of each answer are ≥ {LEAST_DB} dB "
        "against float64. How many times faster than PyTorch's chunked scan:",
        "",
    ]
    print("\n".join(lines))
    watch = Watch()
    for line in measure(asked.library.resolve(), asked.rounds):
        print(line, flush=True)
        lines.append(line)
    page.parent.mkdir(exist_ok=True)
    used = about("as many threads as the table says", "onnxruntime", "torch")
    lines += ["", f"{used}; {busy(watch.others())}. Written by `python benchmarks/kernel.py`.", ""]
    page.write_text("\n".join(lines))
    print(f"\n{page}")
    return None


if __name__ == "__main__":
    main()
