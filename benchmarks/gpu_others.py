"""The network on a GPU without our kernel: by PyTorch's scan, by mamba_ssm's, and in training."""

from __future__ import annotations

import gpu_chip as chip
import torch
from gpu_chip import TYPES, milliseconds
from gpu_network import Bench, eager
from gpu_scans import OTHERS_DB, mamba_ssm, without
from gpu_table import Row, Rows, failed
from torch import Tensor

from bsmamba2_network import BSMamba2
from bsmamba2_network.spectrum import istft, stft

SECONDS = 8
"""Of the chunk."""


def time_others(bench: Bench) -> Rows:
    """Forward, and forward and backward, on one chunk in bf16."""
    rows: Rows = []
    for who, theirs in (("PyTorch eager", False), ("PyTorch eager with mamba_ssm", True)):
        if theirs and mamba_ssm():
            rows.append({"what": f"{who}, bf16", "note": mamba_ssm()})
            rows.append({"what": f"training step, {who}, bf16", "note": mamba_ssm()})
            continue
        bench.truth.stems(SECONDS)  # by the plain scan, whatever comes now
        with without(bench.ours, mamba_ssm=theirs):
            run = eager(bench.net, "bf16")
            rows.append(bench.row(who, "bf16", SECONDS, 1, run, OTHERS_DB))
            rows.append(time_training(bench, f"training step, {who}"))
    return rows


def time_training(bench: Bench, who: str) -> Row:
    """Forward and backward; no optimiser's step."""
    row: Row = {"what": f"{who}, bf16", "chunks": f"{SECONDS:g} s x 1"}
    net, noise = bench.net, bench.truth.noise(SECONDS)
    try:
        chip.forget_peak()
        loss = step(net, noise)
        found = [v.grad for v in net.parameters() if v.grad is not None]
        finite = bool(found) and all(bool(v.isfinite().all()) for v in [loss, *found])
        row["ok"] = finite
        if not finite:
            return {**row, "note": "a gradient is not finite, so not timed"}
        took = milliseconds(lambda: step(net, noise), 1.0)
        row |= {"ms": took, "x real time": SECONDS / took * 1e3, "GB": chip.peak_gb()}
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
