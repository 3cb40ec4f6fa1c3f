"""The floor of an engine: the time of the network's products alone, in the same ONNX Runtime.

It runs every multiply-add that the network needs, as float32 products of the same shapes on the
same number of threads, and nothing else: the network's time if all other work were free.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:  # it imports torch, whose memory must not count
    from bsmamba2_network import Config

SEGMENT = 64

Product = tuple[int, int, int, int, int]
"""(batch, m, k, n, count): ``count`` products of (batch, m, k) and (batch, k, n)."""


def multiply_adds(config: Config, frames: int) -> float:
    """Returns the multiply-adds of all :func:`products`."""
    return sum(share * b * m * k * n * c for share, (b, m, k, n, c) in products(config, frames))


def floor_s(products: Iterable[tuple[float, Product]], threads: int) -> float:
    """Measures the time of the given :func:`products`, in seconds."""
    total = 0.0
    for share, product in products:
        # One session at a time, because the idle threads of other sessions would spin.
        run = session(*product, threads)
        start = time.perf_counter()
        run()
        total += share * (time.perf_counter() - start)
    return total


def products(config: Config, frames: int) -> list[tuple[float, Product]]:
    """Returns the products of one run, each with the share of it that is needed.

    The share is 0.5 for causal products, which need half of a square matrix.
    """
    tokens, blocks = frames * len(config.bands), 2 * config.depth
    dim, inner, heads, P, N = (
        config.dim, config.d_inner, config.heads, config.head_dim, config.state_size
    )  # fmt: skip
    row = inner + config.conv_channels + heads
    needed = [
        (1.0, (1, tokens, dim, row, 2 * blocks)),
        (1.0, (1, tokens, inner, dim, 2 * blocks)),
        (1.0, (1, tokens, 2 * dim, dim, blocks)),
    ]
    hidden = config.mask_expand * dim
    for bins in config.bands:
        width = 2 * config.channels * bins
        needed += [(1.0, (1, frames, width, dim, 1)), (1.0, (1, frames, dim, hidden, 1))]
        needed += [(1.0, (1, frames, hidden, 2 * width, 1))]
    # The scans. The first segment of a sequence reads no state, and the last one writes none.
    bands = len(config.bands)
    full, rest = divmod(frames, SEGMENT)
    for sequences, segments, Q, reading in (
        (bands, full, SEGMENT, full - 1),
        (bands, 1, rest, 1 if full else 0),
        (frames, bands // SEGMENT, SEGMENT, bands // SEGMENT - 1),
        (frames, 1, bands % SEGMENT, 1 if bands >= SEGMENT else 0),
    ):
        count = sequences * segments
        needed += [(0.5, (count, Q, N, Q, blocks)), (0.5, (count * heads, Q, Q, P, blocks))]
        needed += [(1.0, (sequences * reading, Q, N, heads * P, blocks))]
    for sequences, length in ((bands, frames), (frames, bands)):
        writing = sequences * (-(-length // SEGMENT) - 1)
        needed += [(1.0, (writing, heads * P, SEGMENT, N, blocks))]
    return [(share, product) for share, product in needed if min(product) > 0]


def session(batch: int, m: int, k: int, n: int, count: int, threads: int) -> Callable[[], None]:
    """Returns a function that runs (batch, m, k) · (batch, k, n) ``count`` times.

    If batch is 1, the right factor is a constant of the model.
    """
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
    runner = onnxruntime.InferenceSession(model.SerializeToString(), options)
    # Bound once, so that no run allocates memory.
    binding = runner.io_binding()
    binding.bind_cpu_input("a", left)
    if batch > 1:
        binding.bind_cpu_input("b", right)
    out = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((batch, m, n), np.float32))
    binding.bind_ortvalue_output("c", out)
    runner.run_with_iobinding(binding)

    def run() -> None:
        for _ in range(count):
            runner.run_with_iobinding(binding)

    return run
