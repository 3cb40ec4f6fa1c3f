"""The whole network on a GPU: its numbers, and its time on chunks and on a song."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import gpu_chip as chip
import torch
from gpu_chip import RATE, TYPES, Clock, Rows, failed, milliseconds, snr_db
from gpu_scans import Kernel
from torch import Tensor

from bsmamba2_network import BSMamba2
from bsmamba2_network.spectrum import stft

NETWORK_DB = {"fp32": 90, "fp16": 45, "bf16": 35}
"""Against the same in float32 with the plain scan."""


def separate(net: BSMamba2, waveform: Tensor, kind: str) -> Tensor:
    """(batch, channels, samples) to (batch, stems, channels, samples)."""
    config, samples = net.config, waveform.shape[-1]
    narrow = torch.autocast(chip.DEVICE, TYPES[kind], enabled=kind != "fp32")
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
    noise = torch.rand(1, 2, RATE, device=chip.DEVICE) - 0.5
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
            noise = torch.rand(batch, 2, seconds * RATE, device=chip.DEVICE) - 0.5
            runs = {"our kernel, bf16": lambda noise=noise: separate(net, noise, "bf16")}
            try:
                runs["our kernel, bf16, CUDA graph"] = captured(net, noise, "bf16")
            except Exception as error:
                rows.append({"what": "CUDA graph", "chunks": label, "note": failed(error)})
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
    noise = torch.rand(1, 2, 8 * RATE, device=chip.DEVICE) - 0.5
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
        static = torch.zeros(batch, 2, chunk, device=chip.DEVICE)
        try:
            replay = captured(net, static, "bf16")
        except Exception as error:
            rows.append({"what": "song of 3 minutes", "note": failed(error)})
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
            rows.append({"what": f"ONNX Runtime CUDA, {who}", "note": failed(error)})
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
