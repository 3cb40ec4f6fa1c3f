"""Everything that a GPU is wanted for, in one run: first the numbers, then the times.

    python benchmarks/gpu.py [--library PATH] [--minutes 8] [--json gpu.json]

Needs torch and NVIDIA's driver; from a checkout without an installed bsmamba2:

    cmake -S . -B build && cmake --build build --parallel
    PYTHONPATH=runtime:network python benchmarks/gpu.py \\
        --library build/runtime/native/libbsmamba2_ort.so

No network is used. A row whose package is missing says so, as does one that no time was left for.
Weights and signals are random. Shares are of what the chip was measured to do: copies of large
memory, and products of large matrices in bfloat16. Every time is the median of runs between events
on the GPU, after a warm-up; inputs are larger than its caches.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

try:
    import bsmamba2  # noqa: F401
except ModuleNotFoundError:
    # What songs are read and written with is not installed here, nor needed: its parts alone.
    for _name in [name for name in sys.modules if name.startswith("bsmamba2")]:
        del sys.modules[_name]
    _spec = importlib.util.find_spec("bsmamba2")
    if _spec is None:
        raise
    sys.modules["bsmamba2"] = importlib.util.module_from_spec(_spec)

from bsmamba2 import cuda, kernel
from bsmamba2_network import BSMamba2
from bsmamba2_network.scan import mamba2_scan, recurrence, scan
from bsmamba2_network.spectrum import stft

DEVICE = "cuda"

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LEAST_DB = {"fp32": 95, "fp16": 50, "bf16": 35}
"""A scan's, against the recurrence in float64."""
NETWORK_DB = {"fp32": 90, "fp16": 45, "bf16": 35}
"""The whole network's, against itself in float32 with the plain scan."""
HEADS, P, N = 16, 64, 128
AXES = {"time axis, 62 x 801": (62, 801), "band axis, 801 x 62": (801, 62)}
RATE = 44100

Rows = list[dict[str, Any]]


class Clock:
    """What is left of the time that was asked for."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + minutes * 60

    def left(self) -> float:
        return self.end - time.monotonic()


def milliseconds(run: Callable[[], Any], seconds: float = 0.6) -> float:
    """The median time of a run on the GPU."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    count = max(5, min(100, int(seconds / max(time.perf_counter() - start, 1e-6))))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(marks))


def snr_db(wanted: Tensor, got: Tensor) -> float:
    """Signal over error; minus infinite where NaN came."""
    error = (wanted.double() - got.double()).square().sum()
    if not torch.isfinite(error):
        return float("-inf")
    return float(10 * torch.log10(wanted.double().square().sum() / error.clamp_min(1e-300)))


# ---- The kernel under PyTorch ------------------------------------------------------------------


class Kernel:
    """Our kernel, as PyTorch's operator runs it on CUDA."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.states = True
        """Whether states are computed; a network that takes whole chunks reads none."""
        self.plain = False
        """Whether PyTorch's own scan runs in its place."""

    def __call__(self, zxbcdt: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        if self.plain:
            return scan(zxbcdt, *rest)
        parameters, (_, state_size, reverse, epsilon) = rest[:8], rest[8:]
        kept = [v.detach().float().contiguous() for v in parameters]
        batch, length, _ = zxbcdt.shape
        zxbcdt = zxbcdt.contiguous()
        y = zxbcdt.new_empty(batch, length, kept[5].shape[0])
        conv, ssm = (v.new_empty(batch, *v.shape[1:]) for v in kept[6:])
        call = cuda.Call(
            batch, length, kept[3].shape[0], kept[6].shape[0], kept[7].shape[0], int(reverse),
            epsilon, zxbcdt.data_ptr(), *(v.data_ptr() for v in kept), y.data_ptr(),
            *((conv.data_ptr(), ssm.data_ptr()) if self.states else (None, None)),
        )  # fmt: skip
        kind = next(name for name, dtype in TYPES.items() if dtype == zxbcdt.dtype)
        stream = torch.cuda.current_stream().cuda_stream if zxbcdt.is_cuda else 0
        cuda.scan(self.library, call, kind, state_size, stream)
        return y, conv, ssm


def random_call(
    batch: int, length: int, heads: int, states: int, dtype: torch.dtype, kept: int, seed: int = 0
) -> list[Tensor]:
    """Ordinary values; ``kept`` sequences have a state of their own, 0 stands for one zero."""
    draw = torch.Generator(DEVICE).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, device=DEVICE)

    inner, channels = heads * P, heads * P + 2 * states
    A_log = torch.linspace(0, 2.77, heads, device=DEVICE)
    return [
        normal(batch, length, inner + channels + heads).to(dtype),
        normal(channels, 1, 4) * 0.5,
        normal(channels),
        normal(heads) - 2,
        A_log,
        normal(heads),
        normal(inner),
        normal(max(kept, 1), channels, 3) * (kept > 0),
        normal(max(kept, 1), heads, P, states) * (kept > 0),
    ]


LENGTHS = ((1, 0), (2, 1), (2, 3), (3, 63), (2, 64), (2, 65), (2, 200), (900, 5))
"""Batches and lengths that are checked."""
SIZES = ((1, 64), (3, 64), (16, 128))
"""Heads and states."""


def check_scan(ours: Kernel) -> Rows:
    """The kernels against the recurrence in float64, over the grid of the CPU kernel."""
    rows = []
    grid = [
        (batch, length, heads, states, reverse, kept)
        for batch, length in LENGTHS
        for heads, states in SIZES
        for reverse, kept in ((0, batch), (1, 1), (1, 0))
    ]
    for kind, dtype in TYPES.items():
        worst = float("inf")
        for i, (batch, length, heads, states, reverse, kept) in enumerate(grid):
            given = random_call(batch, length, heads, states, dtype, kept, seed=i)
            attributes = (P, states, bool(reverse), 1e-5)
            got = ours(*given, *attributes)
            wanted = scan(*(v.double() for v in given), *attributes, state_space=recurrence)
            for w, g in zip(wanted, got, strict=True):
                if w.numel() and w.abs().sum() > 0:
                    worst = min(worst, snr_db(w, g))
        passed = worst >= LEAST_DB[kind]
        rows.append({"what": f"scan, {kind}, {len(grid)} calls", "worst dB": worst, "ok": passed})
    return rows


# ---- The chip ----------------------------------------------------------------------------------


def ceilings() -> dict[str, float]:
    """Bytes a second of a copy, read and written; operations a second of a product in bfloat16."""

    def copy() -> float:
        source = torch.randn(1 << 29, device=DEVICE)
        target = torch.empty_like(source)
        return 2 * source.nbytes / milliseconds(lambda: target.copy_(source)) * 1e3

    a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    copied, multiplied = copy(), 2 * 8192**3 / milliseconds(lambda: a @ b) * 1e3
    return {"copy bytes/s": copied, "bf16 operations/s": multiplied}


def scan_floor(batch: int, length: int, dtype: torch.dtype) -> tuple[float, float]:
    """The fewest bytes of a scan from zero states, and the operations of its products."""
    size, tokens = torch.empty(0, dtype=dtype).element_size(), batch * length
    inner = HEADS * P
    moved = tokens * (3 * inner + 2 * N + HEADS) * size
    chunks = -(-length // 64)
    in_chunk = tokens * 64 * (N + HEADS * P) * 2  # half of it beyond the diagonal
    through_states = tokens * HEADS * P * N * 4 * (chunks - 1) / max(chunks, 1)
    return moved, in_chunk / 2 + through_states


# ---- Scans -------------------------------------------------------------------------------------


def mamba_ssm_scan() -> Callable[..., Tensor] | str:
    """The chunked scan of mamba_ssm between its own convolution and norm; or why it is missing."""
    try:
        # Its __init__ wants a compiled module that the Triton kernels have no use for.
        sys.modules.setdefault("selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
        from mamba_ssm.ops.triton.layernorm_gated import rmsnorm_fn
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except Exception as error:
        return f"not installed ({type(error).__name__})"
    try:
        from causal_conv1d import causal_conv1d_fn
    except Exception:
        causal_conv1d_fn = None

    def run(zxbcdt, conv_weight, conv_bias, dt_bias, A_log, D, norm_weight, *_states):
        inner = HEADS * P
        z, xBC, dt = zxbcdt.split([inner, inner + 2 * N, HEADS], -1)
        weight, bias = conv_weight.to(zxbcdt.dtype), conv_bias.to(zxbcdt.dtype)
        fed = xBC.transpose(1, 2)
        if causal_conv1d_fn:
            xBC = causal_conv1d_fn(fed, weight[:, 0], bias, activation="silu").transpose(1, 2)
        else:
            fed = torch.nn.functional.pad(fed, (3, 0))
            fed = torch.nn.functional.conv1d(fed, weight, bias, groups=fed.shape[1])
            xBC = torch.nn.functional.silu(fed).transpose(1, 2)
        x, B, C = xBC.split([inner, N, N], -1)
        y = mamba_chunk_scan_combined(
            x.unflatten(-1, (HEADS, P)), dt, -A_log.exp(), B.unsqueeze(2), C.unsqueeze(2), 256,
            D=D, dt_bias=dt_bias, dt_softplus=True,
        )  # fmt: skip
        return rmsnorm_fn(
            y.flatten(2), norm_weight.to(y.dtype), None, z=z, eps=1e-5, norm_before_gate=False
        )

    return run


def time_scans(ours: Kernel, chip: dict[str, float], clock: Clock) -> Rows:
    """One direction of one block at the paper's size and 8 s, from zero states."""
    attributes = (P, N, False, 1e-5)
    theirs = mamba_ssm_scan()
    compiled = torch.compile(scan)
    rows: Rows = []
    for axis, (batch, length) in AXES.items():
        for kind, dtype in TYPES.items():
            given = random_call(batch, length, HEADS, N, dtype, 0)
            exact = ours(given[0].float(), *given[1:], *attributes)[0]
            moved, operations = scan_floor(batch, length, dtype)

            def row(
                who: str, run: Callable[[], Tensor], *, kind=kind, exact=exact, axis=axis,
                moved=moved, operations=operations,
            ) -> None:  # fmt: skip
                try:
                    answer = snr_db(exact, run())
                    took = milliseconds(run)
                except Exception as error:
                    rows.append({"what": f"{who}, {kind}", "axis": axis, "note": repr(error)[:120]})
                    return
                rows.append({
                    "what": f"{who}, {kind}", "axis": axis, "ms": took, "dB": answer,
                    "of copy": moved / took * 1e3 / chip["copy bytes/s"],
                    "of product": operations / took * 1e3 / chip["bf16 operations/s"],
                })  # fmt: skip

            row("our kernel", lambda given=given: ours(*given, *attributes)[0])
            if kind != "bf16":
                continue
            if isinstance(theirs, str):
                rows.append({"what": "mamba_ssm, bf16", "axis": axis, "note": theirs})
            else:
                row("mamba_ssm", lambda given=given: theirs(*given))
            row("PyTorch eager", lambda given=given: scan(*given, *attributes)[0])
            if clock.left() > 240:
                row("torch.compile", lambda given=given: compiled(*given, *attributes)[0])
    return rows


# ---- The whole network -------------------------------------------------------------------------


def separate(net: BSMamba2, waveform: Tensor, kind: str) -> Tensor:
    """(batch, channels, samples) to (batch, stems, channels, samples)."""
    config, samples = net.config, waveform.shape[-1]
    narrow = torch.autocast(DEVICE, TYPES[kind], enabled=kind != "fp32")
    with torch.inference_mode():
        mixture = stft(waveform, config.n_fft, config.hop)
        with narrow:
            stems = net.separate_spectrum(mixture)
        return inverse(stems.float(), config.n_fft, config.hop, samples)


def inverse(spectrum: Tensor, n_fft: int, hop: int, samples: int) -> Tensor:
    """The inverse transform; PyTorch's own waits for the GPU, which no graph can hold."""
    frames = torch.fft.irfft(torch.view_as_complex(spectrum.contiguous()), n_fft)
    window = torch.hann_window(n_fft, device=spectrum.device)
    columns = (frames * window).flatten(0, -3).transpose(1, 2)
    count = columns.shape[2]
    sizes = {"output_size": (1, n_fft + hop * (count - 1)), "kernel_size": (1, n_fft)}
    summed = torch.nn.functional.fold(columns, **sizes, stride=(1, hop))
    squares = window.square()[None, :, None].expand(1, n_fft, count)
    envelope = torch.nn.functional.fold(squares, **sizes, stride=(1, hop))
    out = (summed / envelope.clamp_min(1e-11))[..., n_fft // 2 : n_fft // 2 + samples]
    return out.reshape(*spectrum.shape[:-3], samples)


def check_network(net: BSMamba2, ours: Kernel) -> Rows:
    """A second of noise in every precision, beside float32 with the plain scan."""
    noise = torch.rand(1, 2, RATE, device=DEVICE) - 0.5
    ours.plain = True
    wanted = separate(net, noise, "fp32")
    ours.plain = False
    rows = []
    for kind, least in NETWORK_DB.items():
        found = snr_db(wanted, separate(net, noise, kind))
        rows.append({"what": f"network, {kind}", "worst dB": found, "ok": found >= least})
    return rows


@cache
def capture_stream() -> torch.cuda.Stream:
    """One for all graphs, as the kernels keep a workspace for each stream."""
    return torch.cuda.Stream()


def captured(net: BSMamba2, waveform: Tensor, kind: str) -> Callable[[], Tensor]:
    """The network on this input as a CUDA graph: one launch."""
    stream, graph = capture_stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            separate(net, waveform, kind)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        out = separate(net, waveform, kind)

    def run() -> Tensor:
        graph.replay()
        return out

    return run


def time_network(net: BSMamba2, clock: Clock) -> Rows:
    """Chunks and batches; seconds of audio a second."""
    rows: Rows = []
    for seconds in (8, 1, 4, 16):
        for batch in (1, 4, 16) if seconds < 16 else (1, 4):
            label = f"{seconds} s x {batch}"
            if clock.left() < 60:
                rows.append({"what": "network", "chunks": label, "note": "no time left"})
                continue
            noise = torch.rand(batch, 2, seconds * RATE, device=DEVICE) - 0.5
            runs = {"our kernel, bf16": lambda noise=noise: separate(net, noise, "bf16")}
            try:
                runs["our kernel, bf16, CUDA graph"] = captured(net, noise, "bf16")
            except Exception as error:
                rows.append({"what": "CUDA graph", "chunks": label, "note": repr(error)[:120]})
            if (seconds, batch) == (8, 4):
                runs["our kernel, fp16"] = lambda noise=noise: separate(net, noise, "fp16")
                runs["our kernel, fp32"] = lambda noise=noise: separate(net, noise, "fp32")
            for who, run in runs.items():
                torch.cuda.reset_peak_memory_stats()
                try:
                    took = milliseconds(run, 1.0)
                except torch.cuda.OutOfMemoryError:
                    rows.append({"what": who, "chunks": label, "note": "out of memory"})
                    continue
                rows.append({
                    "what": who, "chunks": label, "ms": took,
                    "x real time": seconds * batch / took * 1e3,
                    "GB": torch.cuda.max_memory_allocated() / 1e9,
                })  # fmt: skip
    return rows


def time_plain_network(net: BSMamba2, ours: Kernel) -> Rows:
    """PyTorch's own scan in the network, for comparison."""
    noise = torch.rand(1, 2, 8 * RATE, device=DEVICE) - 0.5
    ours.plain = True
    took = milliseconds(lambda: separate(net, noise, "bf16"), 1.0)
    ours.plain = False
    return [{"what": "PyTorch eager, bf16", "chunks": "8 s x 1", "ms": took,
             "x real time": 8 / took * 1e3}]  # fmt: skip


def time_song(net: BSMamba2) -> Rows:
    """Three minutes, float32 in host memory to stems in host memory, warm, without overlap."""
    chunk, count = 8 * RATE, 23
    song = torch.rand(2, count * chunk) - 0.5
    song = song[:, : 180 * RATE].contiguous()
    padded = torch.nn.functional.pad(song, (0, count * chunk - song.shape[1])).pin_memory()
    stems = torch.empty_like(padded).pin_memory()
    rows: Rows = []
    for batch in (4, 8, 12):
        static = torch.zeros(batch, 2, chunk, device=DEVICE)
        try:
            replay = captured(net, static, "bf16")
        except Exception as error:
            rows.append({"what": "song of 3 minutes", "note": repr(error)[:120]})
            continue

        def run(batch=batch, static=static, replay=replay) -> None:
            for at in range(0, count, batch):
                spots = [
                    (i, c, slice((at + i) * chunk, (at + i + 1) * chunk))
                    for i in range(min(batch, count - at))
                    for c in range(2)
                ]
                for i, c, samples in spots:  # each lies in one piece, so no copy waits
                    static[i, c].copy_(padded[c, samples], non_blocking=True)
                out = replay()
                for i, c, samples in spots:
                    stems[c, samples].copy_(out[i, 0, c], non_blocking=True)

        took = milliseconds(run, 2.0)
        rows.append({"what": "song of 3 minutes, bf16", "chunks": f"8 s x {batch}", "ms": took,
                     "x real time": 180e3 / took})  # fmt: skip
        del replay
    return rows


def time_onnxruntime(net: BSMamba2, library: Path, folder: Path) -> Rows:
    """The runtime's engine on CUDA, with our kernel and without."""
    try:
        import onnxruntime
    except ImportError:
        return [{"what": "ONNX Runtime CUDA", "note": "not installed"}]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return [{"what": "ONNX Runtime CUDA", "note": "not installed (onnxruntime has no CUDA)"}]
    import numpy as np

    from bsmamba2 import ort_session
    from bsmamba2.checkpoint import read_checkpoint
    from bsmamba2.models import find_graph
    from bsmamba2.ort_engine import OrtEngine

    ort_session.library = lambda: library
    path = folder / "paper.safetensors"
    net.cpu().save(path)
    checkpoint = read_checkpoint(path)
    graph = find_graph(checkpoint)
    spectra = np.random.default_rng(0).standard_normal((1, 2, 801, 1025, 2), np.float32)
    rows: Rows = []
    for who, ours in (("with our kernel", True), ("plain operators", False)):
        try:
            engine = OrtEngine(graph, "cuda", checkpoint.tensors, kernel=ours)
            engine.run_spectrum(spectra)
            times = []
            for _ in range(5):
                start = time.perf_counter()
                engine.run_spectrum(spectra)
                times.append(time.perf_counter() - start)
        except Exception as error:
            rows.append({"what": f"ONNX Runtime CUDA, {who}", "note": str(error)[:120]})
            continue
        took = statistics.median(times)
        rows.append({"what": f"ONNX Runtime CUDA, fp32, {who}", "chunks": "8 s x 1",
                     "ms": took * 1e3, "x real time": 8 / took})  # fmt: skip
    return rows


def tensorrt_rows() -> Rows:
    """Whether there is a TensorRT at all; engines are built with ``bsmamba2 build-engine``."""
    found = [n for n in ("tensorrt", "tensorrt_rtx") if importlib.util.find_spec(n)]
    note = f"{', '.join(found)} installed: not timed here" if found else "not installed"
    return [{"what": "TensorRT, TensorRT-RTX", "note": note}]


# ---- The page ----------------------------------------------------------------------------------


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def show(title: str, rows: Rows) -> Rows:
    """Prints rows as a table, at once."""
    print(f"\n## {title}", flush=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([shown(row.get(key, "")) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path, default=kernel.library())
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--json", type=Path, help="Where to write all figures.")
    parser.add_argument("--numbers-only", action="store_true", help="Check, and time nothing.")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(2, "benchmarks/gpu.py needs an NVIDIA GPU that PyTorch can use\n")
    if asked.library is None:
        parser.error("the native library is not installed: --library names one built elsewhere")
    clock = Clock(asked.minutes)
    torch.backends.cuda.matmul.allow_tf32 = False
    ours = Kernel(cuda.load(asked.library))
    mamba2_scan.register_kernel("cuda")(ours)
    card = torch.cuda.get_device_properties(0)
    found: dict[str, Any] = {
        "gpu": card.name, "compute": [card.major, card.minor], "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    print(f"{card.name}, compute {card.major}.{card.minor}, torch {torch.__version__}", flush=True)
    net = BSMamba2.untrained("paper").eval().cuda()

    def section(title: str, make: Callable[[], Rows], seconds: float = 0) -> None:
        """A failure of one part must not cost the others their time."""
        if clock.left() < seconds:
            found[title] = show(title, [{"what": title, "note": "no time left"}])
            return
        try:
            found[title] = show(title, make())
        except Exception as error:
            found[title] = show(title, [{"what": title, "note": repr(error)[:300]}])
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1))

    section("numbers of the scan", lambda: check_scan(ours))
    ours.states = False
    section("numbers of the network", lambda: check_network(net, ours))
    if asked.numbers_only:
        return
    chip = ceilings()
    found["ceilings"] = chip
    print(f"\ncopy {chip['copy bytes/s'] / 1e12:.2f} TB/s, bf16 product "
          f"{chip['bf16 operations/s'] / 1e12:.0f} TFLOP/s")  # fmt: skip
    section("song", lambda: time_song(net), 60)
    section("network", lambda: time_network(net, clock), 60)
    section("network, plain scan", lambda: time_plain_network(net, ours), 45)
    section("scan", lambda: time_scans(ours, chip, clock), 45)
    folder = (asked.json or Path("gpu.json")).parent
    section("ONNX Runtime", lambda: time_onnxruntime(net, asked.library, folder), 60)
    section("TensorRT", tensorrt_rows)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
