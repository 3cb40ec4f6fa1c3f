"""The whole network on a GPU: its numbers, and its time on chunks, on batches and in training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu import chip
from benchmarks.gpu.chip import RATE, TYPES, Clock, milliseconds, snr_db
from benchmarks.gpu.rows import MIN_SNR_DB, WRONG, Row, Rows, describe_error
from benchmarks.gpu.scans import OTHERS_DB, Kernel, mamba_ssm_missing, without
from bsmamba2.models.check import check_input
from bsmamba2_network import BSMamba2, Config
from bsmamba2_network.spectrum import istft, stft

SHAPES = (
    (8, 1), (8, 4), (1, 1), (4, 1), (16, 1), (8, 16), (1, 16), (4, 4), (1, 4), (4, 16), (16, 4)
)  # fmt: skip
"""Seconds per chunk and chunks per run, the most important first."""
RESERVED_SECONDS, SECTION_SECONDS = 60, 100
"""Time kept for later sections, and time after which this one starts no more shapes."""
CHUNK_SECONDS: float = 8
"""The length of the chunk where only one length is measured."""
CHECK_SECONDS: float = 1
"""The length of the noise on which the precisions are checked."""


def separate(net: BSMamba2, waveform: Tensor, kind: str) -> Tensor:
    """Separates (batch, channels, samples) into (batch, stems, channels, samples)."""
    config, samples = net.config, waveform.shape[-1]
    narrow = torch.autocast(chip.DEVICE, TYPES[kind], enabled=kind != "fp32")
    with torch.inference_mode():
        mixture = stft(waveform, config.n_fft, config.hop)
        with narrow:
            stems = net.separate_spectrum(mixture)
        return inverse(stems.float(), config.n_fft, config.hop, samples)


def inverse(spectrum: Tensor, n_fft: int, hop: int, samples: int) -> Tensor:
    """Inverts the transform. torch.istft waits for the GPU, which a CUDA graph cannot record."""
    frames = torch.fft.irfft(torch.view_as_complex(spectrum.contiguous()), n_fft)
    window = torch.hann_window(n_fft, device=spectrum.device)
    columns = (frames * window).flatten(0, -3).transpose(1, 2)
    count = columns.shape[2]
    fold = partial(
        torch.nn.functional.fold, output_size=(1, n_fft + hop * (count - 1)),
        kernel_size=(1, n_fft), stride=(1, hop),
    )  # fmt: skip
    summed = fold(columns)
    envelope = fold(window.square()[None, :, None].expand(1, n_fft, count))
    out = (summed / envelope.clamp_min(1e-11))[..., n_fft // 2 : n_fft // 2 + samples]
    return out.reshape(*spectrum.shape[:-3], samples)


class Truth:
    """Noise, and its stems by the plain scan in float32, for each length in seconds.

    Other processes read the stems from files and generate the same noise themselves.
    """

    def __init__(self, net: BSMamba2, ours: Kernel) -> None:
        self._net, self._ours = net, ours
        self._stems: dict[float, Tensor] = {}

    def noise(self, seconds: float, batch: int = 1) -> Tensor:
        """Returns (batch, channels, samples), the same noise in every row of the batch."""
        noise = check_input(0, self._net.config.channels, int(seconds * RATE))
        return torch.from_numpy(noise).to(chip.DEVICE).expand(batch, -1, -1).contiguous()

    def stems(self, seconds: float) -> Tensor:
        """Returns the stems of one row, (stems, channels, samples)."""
        if seconds not in self._stems:
            with without(self._ours):
                self._stems[seconds] = separate(self._net, self.noise(seconds), "fp32")[0]
        return self._stems[seconds]

    def db(self, seconds: float, stems: Tensor) -> float:
        """Returns the lowest SNR in a batch of stems."""
        return min(snr_db(self.stems(seconds), one) for one in stems)

    def write(self, folder: Path, lengths: set[float]) -> None:
        """Writes the stems as ``stems-SECONDS.npy``."""
        for seconds in lengths:
            np.save(folder / f"stems-{seconds:g}.npy", self.stems(seconds).cpu().numpy())


@dataclass
class Bench:
    """The arguments shared by all measurements of the network."""

    net: BSMamba2
    ours: Kernel
    clock: Clock
    ceilings: dict[str, float]
    """The result of :func:`benchmarks.gpu.chip.ceilings`."""
    truth: Truth

    def row(
        self, who: str, kind: str, seconds: float, batch: int,
        make: Callable[[Tensor], Callable[[], Tensor]], min_snr_db: float | None = None,
    ) -> Row:  # fmt: skip
        """Measures a row: the output's SNR, then the time, the memory and the share of the ceiling.

        Args:
            make: takes (batch, channels, samples) and returns a function that returns (batch,
                stems, channels, samples).
            min_snr_db: default: the limit for our kernel.
        """
        row: Row = {"what": f"{who}, {kind}", "chunks": f"{seconds:g} s x {batch}"}
        try:
            self.truth.stems(seconds)  # computed first, so that its memory does not count
            chip.reset_peak()
            run = make(self.truth.noise(seconds, batch))
            row["dB"] = self.truth.db(seconds, run())
            row["ok"] = row["dB"] >= (MIN_SNR_DB[kind] if min_snr_db is None else min_snr_db)
            if not row["ok"]:
                return {**row, "note": WRONG}
            ms = milliseconds(run, 1.0)
            operations = batch * product_operations(self.net.config, seconds)
            row |= {
                "ms": ms, "x real time": seconds * batch / ms * 1e3, "GB": chip.peak_gb(),
                "of product": operations / ms * 1e3 / self.ceilings["bf16 operations/s"],
            }  # fmt: skip
        except torch.cuda.OutOfMemoryError:
            row["note"] = "out of memory"
        except Exception as error:
            row["note"] = describe_error(error)
        return row


def check_network(net: BSMamba2, truth: Truth) -> Rows:
    """Compares the stems of noise in every precision with those of the plain scan in float32."""
    rows: Rows = []
    for kind, min_snr_db in MIN_SNR_DB.items():
        row: Row = {"what": f"network, {kind}"}
        try:
            stems = separate(net, truth.noise(CHECK_SECONDS), kind)
            row["dB"] = truth.db(CHECK_SECONDS, stems)
            row["ok"] = row["dB"] >= min_snr_db
        except Exception as error:
            row |= {"ok": False, "note": describe_error(error)}
        rows.append(row)
    return rows


@cache
def capture_stream() -> torch.cuda.Stream:
    """Returns one stream for all graphs, because the kernels keep a workspace per stream."""
    return torch.cuda.Stream()


def captured(net: BSMamba2, waveform: Tensor, kind: str) -> Callable[[], Tensor]:
    """Captures the network on this input as a CUDA graph and returns its launch."""
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


def eager(net: BSMamba2, kind: str) -> Callable[[Tensor], Callable[[], Tensor]]:
    """Returns an argument for :meth:`Bench.row`: the network in PyTorch's eager mode."""
    return lambda noise: lambda: separate(net, noise, kind)


def time_network(bench: Bench) -> Rows:
    """Times the network with our kernel on every shape."""
    rows: Rows = []
    net, stop = bench.net, max(RESERVED_SECONDS, bench.clock.left_s() - SECTION_SECONDS)
    for seconds, batch in SHAPES:
        if bench.clock.left_s() < stop:
            label = f"{seconds:g} s x {batch}"
            rows.append({"what": "our kernel", "chunks": label, "note": "no time left"})
            continue
        shape = seconds, batch
        graph = partial(captured, net, kind="bf16")
        rows.append(bench.row("our kernel, CUDA graph", "bf16", *shape, graph))
        rows.append(bench.row("our kernel", "bf16", *shape, eager(net, "bf16")))
        if shape == SHAPES[0]:
            rows += [bench.row("our kernel", kind, *shape, eager(net, kind)) for kind in
                     ("fp16", "fp32")]  # fmt: skip
            rows.append(time_products(bench, seconds))
    return rows


Product = tuple[int, int, int, int]
"""(m, k, n, count): ``count`` products of (m, k) and (k, n)."""


def products(config: Config, seconds: float) -> list[Product]:
    """Returns all products of tokens and weights in a run on one chunk, not those in the scans."""
    frames = int(seconds * RATE) // config.hop + 1
    tokens, blocks = frames * len(config.bands), 2 * config.depth
    dim, inner, hidden = config.dim, config.d_inner, config.mask_expand * config.dim
    sizes = [
        (tokens, dim, inner + config.conv_channels + config.heads, 2 * blocks),
        (tokens, inner, dim, 2 * blocks),
        (tokens, 2 * dim, dim, blocks),
    ]
    stems = len(config.stems)
    for bins in config.bands:
        width = 2 * config.channels * bins
        sizes += [(frames, width, dim, 1), (frames, dim, hidden, stems)]
        sizes += [(frames, hidden, 2 * width, stems)]
    return sizes


def product_operations(config: Config, seconds: float) -> float:
    """Returns the operations of all :func:`products`, two per multiply-add."""
    return sum(2.0 * m * k * n * count for m, k, n, count in products(config, seconds))


def time_products(bench: Bench, seconds: float) -> Row:
    """Times each product alone; the sum is the network's time if everything else were free."""
    row: Row = {"what": "matrix products alone, bf16", "chunks": f"{seconds:g} s x 1"}
    try:
        ms, config = 0.0, bench.net.config
        times: dict[tuple[int, int, int], float] = {}
        for m, k, n, count in products(config, seconds):
            if (m, k, n) not in times:
                options: dict[str, Any] = {"device": chip.DEVICE, "dtype": torch.bfloat16}
                a, b = torch.randn(m, k, **options), torch.randn(n, k, **options)
                times[m, k, n] = milliseconds(partial(torch.matmul, a, b.T), 0.05)
            ms += count * times[m, k, n]
        reached = product_operations(config, seconds) / ms * 1e3
        row |= {"ms": ms, "x real time": seconds / ms * 1e3,
                "of product": reached / bench.ceilings["bf16 operations/s"]}  # fmt: skip
    except Exception as error:
        row["note"] = describe_error(error)
    return row


def time_others(bench: Bench) -> Rows:
    """Times the network without our kernel on one chunk in bf16, forward and in a training step."""
    rows: Rows = []
    for who, theirs in (("PyTorch eager", False), ("PyTorch eager with mamba_ssm", True)):
        if theirs and (reason := mamba_ssm_missing()):
            rows.append({"what": f"{who}, bf16", "note": reason})
            rows.append({"what": f"training step, {who}, bf16", "note": reason})
            continue
        bench.truth.stems(CHUNK_SECONDS)  # computed first, by the plain scan
        with without(bench.ours, mamba_ssm=theirs):
            run = eager(bench.net, "bf16")
            rows.append(bench.row(who, "bf16", CHUNK_SECONDS, 1, run, OTHERS_DB))
            rows.append(time_training(bench, f"training step, {who}"))
    return rows


def time_training(bench: Bench, who: str) -> Row:
    """Times forward and backward, without the optimiser's step."""
    row: Row = {"what": f"{who}, bf16", "chunks": f"{CHUNK_SECONDS:g} s x 1"}
    net, noise = bench.net, bench.truth.noise(CHUNK_SECONDS)
    try:
        chip.reset_peak()
        loss = training_step(net, noise)
        gradients = [v.grad for v in net.parameters() if v.grad is not None]
        finite = bool(gradients) and all(bool(v.isfinite().all()) for v in [loss, *gradients])
        row["ok"] = finite
        if not finite:
            return {**row, "note": "a gradient is not finite, so not timed"}
        ms = milliseconds(lambda: training_step(net, noise), 1.0)
        row |= {
            "ms": ms,
            "x real time": CHUNK_SECONDS / ms * 1e3,
            "GB": chip.peak_gb(),
        }
    except torch.cuda.OutOfMemoryError:
        row["note"] = "out of memory"
    except Exception as error:
        row["note"] = describe_error(error)
    finally:
        net.zero_grad(set_to_none=True)
    return row


def training_step(net: BSMamba2, noise: Tensor) -> Tensor:
    """Computes the gradients of the mean distance between stems and mixture; returns the distance.

    Args:
        noise: (batch, channels, samples).
    """
    net.zero_grad(set_to_none=True)
    config = net.config
    mixture = stft(noise, config.n_fft, config.hop)
    with torch.autocast(chip.DEVICE, TYPES["bf16"]):
        spectra = net.separate_spectrum(mixture)
    stems = istft(spectra.float(), config.n_fft, config.hop, noise.shape[-1])
    loss = (stems - noise[:, None]).abs().mean()
    loss.backward()
    return loss.detach()
