"""The part of :mod:`benchmarks.engine` that needs torch: exported models and PyTorch networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch

from benchmarks import floor
from bsmamba2.audio.array import Audio
from bsmamba2_export import artifact
from bsmamba2_export.exporter import describe
from bsmamba2_export.trace import trace
from bsmamba2_network import BSMamba2, Config, scan
from bsmamba2_network import model as network_model

CONFIG = Config()
"""The paper's size."""
Run = Callable[[Audio], Audio]


def prepare(
    folder: Path, lengths: Collection[float], noise: Callable[[float], Audio], with_ort: bool
) -> None:
    """Writes the models, and for each length in seconds the products and PyTorch's stems."""
    net = BSMamba2.untrained("paper")
    for target in ("portable", "ort")[: 1 + with_ort]:
        model = trace(net, target=target)
        artifact.set_manifest(model, describe(net, "paper", target=target))
        artifact.write(model, folder / f"{target}.onnx")
    for seconds in lengths:
        audio = noise(seconds)
        products = floor.products(CONFIG, frames(audio.shape[1]))
        (folder / f"{seconds:g}.json").write_text(json.dumps(products))
        np.save(folder / f"{seconds:g}.npy", torch_run(net)(audio))


def multiply_adds(samples: int) -> float:
    """Returns the multiply-adds of the paper's network on this many samples."""
    return floor.multiply_adds(CONFIG, frames(samples))


def frames(samples: int) -> int:
    return samples // CONFIG.hop + 1


def runner(name: str, threads: int) -> tuple[Run, float]:
    """Returns a function that separates (channels, samples), and its number of parameters."""
    torch.set_num_threads(threads)
    net: torch.nn.Module
    if name == "roformer":
        from bs_roformer import BSRoformer

        # The published network has one residual stream.
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
        # The compiler cannot see inside the operator, so its body, plain PyTorch, replaces it.
        network_model.mamba2_scan = scan.scan  # type: ignore[attr-defined, assignment]
        assert isinstance(net, BSMamba2)
        for layer in net.layers:
            for block in layer.children():
                block.compile(dynamic=False)
    return torch_run(net.eval()), sum(p.numel() for p in net.parameters())


def torch_run(net: torch.nn.Module) -> Run:
    def run(audio: Audio) -> Audio:
        with torch.inference_mode():
            stems: Audio = net(torch.from_numpy(audio)[None])[0].numpy()
        return stems

    return run
