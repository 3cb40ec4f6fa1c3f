"""What :mod:`engine` needs torch for: the models that it runs, and the networks of PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import floor
import numpy as np
import torch

from bsmamba2.audio.array import Audio
from bsmamba2_export import artifact
from bsmamba2_export.exporter import describe
from bsmamba2_export.trace import trace
from bsmamba2_network import BSMamba2, Config, model, scan

CONFIG = Config()
"""The paper's size."""
Run = Callable[[Audio], Audio]


def prepare(
    folder: Path, lengths: Collection[float], noise: Callable[[float], Audio], with_ort: bool
) -> None:
    """The models, and for each length in seconds its products and what PyTorch makes of it."""
    net = BSMamba2.untrained("paper")
    for target in ("portable", "ort")[: 1 + with_ort]:
        made = trace(net, target=target)
        artifact.set_manifest(made, describe(net, "paper", target=target))
        artifact.write(made, folder / f"{target}.onnx")
    for seconds in lengths:
        audio = noise(seconds)
        needed = floor.products(CONFIG, frames(audio.shape[1]))
        (folder / f"{seconds:g}.json").write_text(json.dumps(needed))
        np.save(folder / f"{seconds:g}.npy", torch_run(net)(audio))


def multiply_adds(samples: int) -> float:
    return floor.multiply_adds(CONFIG, frames(samples))


def frames(samples: int) -> int:
    return samples // CONFIG.hop + 1


def runner(name: str, threads: int) -> tuple[Run, float]:
    """How the row of this name separates (channels, samples), and its parameters."""
    torch.set_num_threads(threads)
    net: torch.nn.Module
    if name == "roformer":
        from bs_roformer import BSRoformer

        # The published form of the network: one stream of residuals.
        net = BSRoformer(
            dim=256, depth=10, stereo=True, stft_hop_length=441, time_transformer_depth=1,
            freq_transformer_depth=1, num_residual_streams=1,
        )  # fmt: skip
    elif name == "demucs":
        from demucs.htdemucs import HTDemucs

        sources = ["drums", "bass", "other", "vocals"]
        net = HTDemucs(sources=sources, bottom_channels=512, use_train_segment=False)
    else:
        net = BSMamba2.untrained("paper")
    if name == "compiled":
        # The scan is an operator that a compiler does not look into; its body is plain PyTorch.
        model.mamba2_scan = scan.scan  # type: ignore[assignment]
        for layer in net.layers:
            for block in layer:
                block.compile(dynamic=False)
    return torch_run(net.eval()), sum(p.numel() for p in net.parameters())


def torch_run(net: torch.nn.Module) -> Run:
    def run(audio: Audio) -> Audio:
        with torch.inference_mode():
            stems: Audio = net(torch.from_numpy(audio)[None])[0].numpy()
        return stems

    return run
