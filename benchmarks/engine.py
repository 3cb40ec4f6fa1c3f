"""The engine beside its floor, PyTorch, and the same file by plain operators, in one run.

    python benchmarks/engine.py [--seconds 8] [--rounds 3]    # writes results/engine.md

The floor is every multiply-add that the network needs, as float32 products of the same shapes in
the same ONNX Runtime at the same threads, and nothing else: what no engine on top of these
products can beat. Every answer is compared with PyTorch's first. Needs the extras cpu and export.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from song import cpu

from bsmamba2.check import check_input, snr_db
from bsmamba2.onnx_file import read_onnx
from bsmamba2.ort_engine import OrtEngine
from bsmamba2_export import artifact
from bsmamba2_export.exporter import describe
from bsmamba2_export.trace import trace
from bsmamba2_network import BSMamba2, Config

RESULT = Path(__file__).parent / "results/engine.md"
CHUNK = 64
ENGINE = "engine: ONNX Runtime with the kernel"

Run = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    net = BSMamba2.untrained("paper")
    audio = check_input(0, 2, round(arguments.seconds * net.config.sample_rate))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "paper.onnx"
        model = trace(net)
        artifact.set_manifest(model, describe(net, "paper"))
        artifact.write(model, path)
        engine, plain = (
            OrtEngine(read_onnx(path), "cpu", threads=arguments.threads, kernel=kernel)
            for kernel in (True, False)
        )
    products = list(floor(net.config, audio.shape[1] // net.config.hop + 1))
    giga = sum(s * b * m * k * n * c for s, (b, m, k, n, c) in products) / 1e9

    def torch_eager() -> object:
        with torch.inference_mode():
            return net(torch.from_numpy(audio)[None])[0].numpy()

    wanted = torch_eager()
    agreements = [snr_db(wanted, run.run(audio)) for run in (engine, plain)]
    assert min(agreements) >= 90, agreements

    def products_alone() -> float:
        # One session at a time: threads of the others would wait by spinning.
        return sum(share * clock(session(*p, arguments.threads)) for share, p in products)

    rows: dict[str, Callable[[], float]] = {
        "floor: the products alone": products_alone,
        ENGINE: lambda: clock(lambda: engine.run(audio)),
        "ONNX Runtime, plain operators": lambda: clock(lambda: plain.run(audio)),
        "PyTorch, eager": lambda: clock(torch_eager),
    }
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(arguments.rounds):
        for name, run in rows.items():
            taken[name].append(run())
    median = {name: statistics.median(values) for name, values in taken.items()}
    base = median[ENGINE]
    page = "\n".join(
        [
            "# The engine and its floor",
            "",
            f"The paper's size, {arguments.seconds:g} s of stereo, float32, {arguments.threads} "
            f"threads, {giga:.0f} G multiply-adds; medians of {arguments.rounds} rounds in turn; "
            f"answers agree with PyTorch to {min(agreements):.0f} dB.",
            "",
            "| | time | engine takes |",
            "|---|---|---|",
            *(
                f"| {name} | {value:.2f} s | {base / value:.2f}× |"
                for name, value in median.items()
            ),
            "",
            f"{cpu()}; ONNX Runtime {version('onnxruntime')}, torch {torch.__version__}; "
            f"{datetime.date.today()}; `python benchmarks/engine.py "
            f"--seconds {arguments.seconds:g} --rounds {arguments.rounds}`.",
        ]
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(page + "\n")
    print(page)


def clock(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def floor(config: Config, frames: int) -> list[tuple[float, tuple[int, int, int, int, int]]]:
    """(share, (batch, m, k, n, count)): the products of one run.

    A causal product needs half of a square one; the share says so.
    """
    tokens, blocks = frames * len(config.bands), 2 * config.depth
    dim, inner, heads, P, N = (
        config.dim, config.d_inner, config.heads, config.head_dim, config.state_size
    )  # fmt: skip
    row = inner + config.conv_channels + heads
    found = [
        (1.0, (1, tokens, dim, row, 2 * blocks)),
        (1.0, (1, tokens, inner, dim, 2 * blocks)),
        (1.0, (1, tokens, 2 * dim, dim, blocks)),
    ]
    hidden = config.mask_expand * dim
    for bins in config.bands:
        width = 2 * config.channels * bins
        found += [(1.0, (1, frames, width, dim, 1)), (1.0, (1, frames, dim, hidden, 1))]
        found += [(1.0, (1, frames, hidden, 2 * width, 1))]
    time_chunks, bands = len(config.bands) * -(-frames // CHUNK), len(config.bands)
    for chunks, Q, carries in ((time_chunks, CHUNK, True), (frames, bands, False)):
        found += [(0.5, (chunks, Q, N, Q, blocks)), (0.5, (chunks * heads, Q, Q, P, blocks))]
        if carries:
            found += [(1.0, (chunks, Q, N, heads * P, blocks))]
            found += [(1.0, (chunks, heads * P, Q, N, blocks))]
    return found


def session(batch: int, m: int, k: int, n: int, count: int, threads: int) -> Run:
    """``count`` runs of (batch, m, k) · (batch, k, n); a constant right side where batch is 1."""
    random = np.random.default_rng(0)
    right = random.normal(size=(batch, k, n) if batch > 1 else (k, n)).astype(np.float32)
    left = random.normal(size=(batch, m, k)).astype(np.float32)
    kinds = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("a", left.shape), ("b", right.shape), ("c", (batch, m, n)))
    ]
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    constants = [numpy_helper.from_array(right, "b")] if batch == 1 else []
    inputs = kinds[:1] if batch == 1 else kinds[:2]
    graph = helper.make_graph([node], "product", inputs, kinds[2:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    loaded = onnxruntime.InferenceSession(model.SerializeToString(), options)
    # Bound once: a floor has no fresh memory to fill.
    binding = loaded.io_binding()
    binding.bind_cpu_input("a", left)
    if batch > 1:
        binding.bind_cpu_input("b", right)
    out = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((batch, m, n), np.float32))
    binding.bind_ortvalue_output("c", out)
    loaded.run_with_iobinding(binding)

    def run() -> None:
        for _ in range(count):
            loaded.run_with_iobinding(binding)

    return run


if __name__ == "__main__":
    main()
