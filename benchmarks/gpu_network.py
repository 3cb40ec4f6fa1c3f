"""The whole network on a GPU: its numbers; its time on chunks and batches, and in training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import gpu_chip as chip
import numpy as np
import torch
from gpu_chip import RATE, TYPES, Clock, milliseconds, snr_db
from gpu_rows import LEAST_DB, WRONG, Row, Rows, failed
from gpu_scans import OTHERS_DB, Kernel, mamba_ssm, without
from torch import Tensor

from bsmamba2.models.check import check_input
from bsmamba2_network import BSMamba2, Config
from bsmamba2_network.spectrum import istft, stft

SHAPES = (
    (8, 1), (8, 4), (1, 1), (4, 1), (16, 1), (8, 16), (1, 16), (4, 4), (1, 4), (4, 16), (16, 4)
)  # fmt: skip
"""Seconds of a chunk and chunks of a run, most wanted first."""
LAST_SECONDS, LONGEST_SECONDS = 60, 100
"""What other sections still want, and how long this one may take: no shape is begun after that."""
CHUNK_SECONDS = 8
"""Of the chunk where only one is measured."""
CHECK_SECONDS = 1
"""Of the noise that precisions are checked on."""


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


class Truth:
    """Noise, and the stems that float32 with the plain scan makes of it, by seconds.

    Other processes get the stems as files, and make the same noise themselves.
    """

    def __init__(self, net: BSMamba2, ours: Kernel) -> None:
        self._net, self._ours = net, ours
        self._stems: dict[float, Tensor] = {}

    def noise(self, seconds: float, batch: int = 1) -> Tensor:
        """(batch, channels, samples), all the same."""
        noise = check_input(0, self._net.config.channels, int(seconds * RATE))
        return torch.from_numpy(noise).to(chip.DEVICE).expand(batch, -1, -1).contiguous()

    def stems(self, seconds: float) -> Tensor:
        """(stems, channels, samples) of one."""
        if seconds not in self._stems:
            with without(self._ours):
                self._stems[seconds] = separate(self._net, self.noise(seconds), "fp32")[0]
        return self._stems[seconds]

    def db(self, seconds: float, stems: Tensor) -> float:
        """The worst of a batch."""
        return min(snr_db(self.stems(seconds), one) for one in stems)

    def write(self, folder: Path, lengths: set[float]) -> None:
        """The stems as ``stems-SECONDS.npy``."""
        for seconds in lengths:
            np.save(folder / f"stems-{seconds:g}.npy", self.stems(seconds).cpu().numpy())


@dataclass
class Bench:
    """What every measurement of the network needs."""

    net: BSMamba2
    ours: Kernel
    clock: Clock
    most: dict[str, float]
    """The chip's ceilings, of :func:`gpu_chip.ceilings`."""
    truth: Truth

    def row(
        self, who: str, kind: str, seconds: float, batch: int,
        make: Callable[[Tensor], Callable[[], Tensor]], least_db: float | None = None,
    ) -> Row:  # fmt: skip
        """One row: the answer's SNR, then the time, the memory and the share of the ceiling.

        Args:
            make: of (batch, channels, samples), what gives (batch, stems, channels, samples).
            least_db: in place of what is asked of ours.
        """
        row: Row = {"what": f"{who}, {kind}", "chunks": f"{seconds:g} s x {batch}"}
        try:
            self.truth.stems(seconds)  # whose memory is not this row's
            chip.forget_peak()
            run = make(self.truth.noise(seconds, batch))
            row["dB"] = self.truth.db(seconds, run())
            row["ok"] = row["dB"] >= (LEAST_DB[kind] if least_db is None else least_db)
            if not row["ok"]:
                return {**row, "note": WRONG}
            took = milliseconds(run, 1.0)
            operations = batch * product_operations(self.net.config, seconds)
            row |= {
                "ms": took, "x real time": seconds * batch / took * 1e3, "GB": chip.peak_gb(),
                "of product": operations / took * 1e3 / self.most["bf16 operations/s"],
            }  # fmt: skip
        except torch.cuda.OutOfMemoryError:
            row["note"] = "out of memory"
        except Exception as error:
            row["note"] = failed(error)
        return row


def check_network(net: BSMamba2, truth: Truth) -> Rows:
    """Noise in every precision, beside float32 with the plain scan."""
    rows: Rows = []
    for kind, least in LEAST_DB.items():
        row: Row = {"what": f"network, {kind}"}
        try:
            stems = separate(net, truth.noise(CHECK_SECONDS), kind)
            row["dB"] = truth.db(CHECK_SECONDS, stems)
            row["ok"] = row["dB"] >= least
        except Exception as error:
            row |= {"ok": False, "note": failed(error)}
        rows.append(row)
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


def eager(net: BSMamba2, kind: str) -> Callable[[Tensor], Callable[[], Tensor]]:
    """For :meth:`Bench.row`: the network as PyTorch runs it."""
    return lambda noise: lambda: separate(net, noise, kind)


def time_network(bench: Bench) -> Rows:
    """By our kernel: chunks and batches; seconds of audio a second."""
    rows: Rows = []
    net, stop = bench.net, max(LAST_SECONDS, bench.clock.left() - LONGEST_SECONDS)
    for seconds, batch in SHAPES:
        if bench.clock.left() < stop:
            label = f"{seconds:g} s x {batch}"
            rows.append({"what": "our kernel", "chunks": label, "note": "no time left"})
            continue
        where = seconds, batch
        graph = lambda noise: captured(net, noise, "bf16")  # noqa: E731
        rows.append(bench.row("our kernel, CUDA graph", "bf16", *where, graph))
        rows.append(bench.row("our kernel", "bf16", *where, eager(net, "bf16")))
        if where == SHAPES[0]:
            rows += [bench.row("our kernel", kind, *where, eager(net, kind)) for kind in
                     ("fp16", "fp32")]  # fmt: skip
            rows.append(time_products(bench, seconds))
    return rows


Product = tuple[int, int, int, int]
"""(m, k, n, count): ``count`` products of (m, k) and (k, n)."""


def products(config: Config, seconds: float) -> list[Product]:
    """Every product of tokens with weights in a run on one chunk; the scans' own are not here."""
    frames = int(seconds * RATE) // config.hop + 1
    tokens, blocks = frames * len(config.bands), 2 * config.depth
    dim, inner, hidden = config.dim, config.d_inner, config.mask_expand * config.dim
    found = [
        (tokens, dim, inner + config.conv_channels + config.heads, 2 * blocks),
        (tokens, inner, dim, 2 * blocks),
        (tokens, 2 * dim, dim, blocks),
    ]
    stems = len(config.stems)
    for bins in config.bands:
        width = 2 * config.channels * bins
        found += [(frames, width, dim, 1), (frames, dim, hidden, stems)]
        found += [(frames, hidden, 2 * width, stems)]
    return found


def product_operations(config: Config, seconds: float) -> float:
    """Of all :func:`products`: two a multiply-add."""
    return sum(2.0 * m * k * n * count for m, k, n, count in products(config, seconds))


def time_products(bench: Bench, seconds: float) -> Row:
    """The products alone, each by itself: the network's time if all else cost nothing."""
    row: Row = {"what": "its products alone, bf16", "chunks": f"{seconds:g} s x 1"}
    try:
        took, config = 0.0, bench.net.config
        times: dict[Product, float] = {}
        for m, k, n, count in products(config, seconds):
            if (m, k, n, 1) not in times:
                sizes = {"device": chip.DEVICE, "dtype": torch.bfloat16}
                a, b = torch.randn(m, k, **sizes), torch.randn(n, k, **sizes)
                times[m, k, n, 1] = milliseconds(lambda a=a, b=b: a @ b.T, 0.05)
            took += count * times[m, k, n, 1]
        reached = product_operations(config, seconds) / took * 1e3
        row |= {"ms": took, "x real time": seconds / took * 1e3,
                "of product": reached / bench.most["bf16 operations/s"]}  # fmt: skip
    except Exception as error:
        row["note"] = failed(error)
    return row


def time_others(bench: Bench) -> Rows:
    """Without our kernel: forward, and forward and backward, on one chunk in bf16."""
    rows: Rows = []
    for who, theirs in (("PyTorch eager", False), ("PyTorch eager with mamba_ssm", True)):
        if theirs and mamba_ssm():
            rows.append({"what": f"{who}, bf16", "note": mamba_ssm()})
            rows.append({"what": f"training step, {who}, bf16", "note": mamba_ssm()})
            continue
        bench.truth.stems(CHUNK_SECONDS)  # by the plain scan, whatever comes now
        with without(bench.ours, mamba_ssm=theirs):
            run = eager(bench.net, "bf16")
            rows.append(bench.row(who, "bf16", CHUNK_SECONDS, 1, run, OTHERS_DB))
            rows.append(time_training(bench, f"training step, {who}"))
    return rows


def time_training(bench: Bench, who: str) -> Row:
    """Forward and backward; no optimiser's step."""
    row: Row = {"what": f"{who}, bf16", "chunks": f"{CHUNK_SECONDS:g} s x 1"}
    net, noise = bench.net, bench.truth.noise(CHUNK_SECONDS)
    try:
        chip.forget_peak()
        loss = step(net, noise)
        found = [v.grad for v in net.parameters() if v.grad is not None]
        finite = bool(found) and all(bool(v.isfinite().all()) for v in [loss, *found])
        row["ok"] = finite
        if not finite:
            return {**row, "note": "a gradient is not finite, so not timed"}
        took = milliseconds(lambda: step(net, noise), 1.0)
        row |= {"ms": took, "x real time": CHUNK_SECONDS / took * 1e3, "GB": chip.peak_gb()}
    except torch.cuda.OutOfMemoryError:
        row["note"] = "out of memory"
    except Exception as error:
        row["note"] = failed(error)
    finally:
        net.zero_grad(set_to_none=True)
    return row


def step(net: BSMamba2, noise: Tensor) -> Tensor:
    """The mean distance of the stems of (batch, channels, samples) from it, and its gradients."""
    net.zero_grad(set_to_none=True)
    config = net.config
    mixture = stft(noise, config.n_fft, config.hop)
    with torch.autocast(chip.DEVICE, TYPES["bf16"]):
        spectra = net.separate_spectrum(mixture)
    stems = istft(spectra.float(), config.n_fft, config.hop, noise.shape[-1])
    loss = (stems - noise[:, None]).abs().mean()
    loss.backward()
    return loss.detach()
