"""Compares the network and overlap-add with the code of Music-Source-Separation-Training."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from bsmamba2 import Manifest
from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import CPU
from bsmamba2.pipeline import overlap_add
from bsmamba2_network import BSMamba2
from support.msst_reference import published_model, snr_db


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(7)
    model: nn.Module = published_model()
    return model


@pytest.fixture(scope="module")
def ours(theirs: nn.Module) -> BSMamba2:
    net = BSMamba2().eval()
    net.load_state_dict(theirs.state_dict(), strict=True)
    return net


def masks_and_stems(model: Any, waveform: Tensor) -> tuple[Tensor, Tensor]:
    """Runs the model and returns the output of its mask estimator and its stems."""
    masks: list[Tensor] = []
    handle = model.mask_estimators[0].register_forward_hook(lambda *call: masks.append(call[2]))
    with handle, torch.inference_mode():
        stems = model(waveform)
    return masks[0], stems


def test_strict_loading_works_both_ways(ours: BSMamba2, theirs: nn.Module) -> None:
    assert not any(theirs.load_state_dict(ours.state_dict(), strict=True))


def test_masks_and_stems_agree_with_the_original_to_100_db(
    ours: BSMamba2, theirs: nn.Module
) -> None:
    waveform = torch.randn(1, 2, 2205, generator=torch.Generator().manual_seed(1))
    expected, actual = masks_and_stems(theirs, waveform), masks_and_stems(ours, waveform)
    assert snr_db(expected[0], actual[0]) >= 100
    assert snr_db(expected[1].reshape(-1), actual[1].reshape(-1)) >= 100


def position_dependent(chunk: Audio) -> Audio:
    """Depends on a sample's position in the chunk, so that the overlap matters."""
    ramp = np.linspace(0.5, 1.5, chunk.shape[-1], dtype=np.float32)
    stem: Audio = np.tanh(chunk * ramp)[np.newaxis]
    return stem


class PositionModel(nn.Module):
    def forward(self, batch: Tensor) -> Tensor:
        return torch.stack([torch.from_numpy(position_dependent(item.numpy())) for item in batch])


@pytest.mark.parametrize("num_overlap", [2, 4])
def test_overlap_add_with_msst_windows_agrees_with_msst_to_80_db(
    monkeypatch: pytest.MonkeyPatch, num_overlap: int
) -> None:
    """Both pad the ends of the song by a chunk minus a step, and cut the padding off afterwards."""
    msst = importlib.import_module("msst.utils.model_utils")
    chunk, mixture = 400, np.random.default_rng(0).normal(size=(2, 2000)).astype(np.float32)
    step = chunk // num_overlap
    config: dict[str, Any] = {"inference": {"num_overlap": num_overlap, "batch_size": 1}}
    config |= {"audio": {"chunk_size": chunk}, "training": {"instruments": ["vocals"]}}
    theirs = msst.demix(ConfigDict(config), PositionModel(), mixture, "cpu", "bs_mamba2")["vocals"]

    manifest = Manifest("stub", chunk=chunk, n_fft=16, hop=4)
    engine = SimpleNamespace(manifest=manifest, run=position_dependent, device=CPU)
    window = np.maximum(msst._getWindowingArray(chunk, chunk // 10).double().numpy(), 1e-9)
    monkeypatch.setattr(overlap_add, "linear_window", lambda chunk, hop: window)
    stream = overlap_add.OverlapAdd(engine, 1 - 1 / num_overlap)
    border = chunk - step
    padded = np.pad(mixture, [(0, 0), (border, border)], mode="reflect")
    ours = np.concatenate([stream.push(padded), stream.flush()], axis=-1)[0, :, border:-border]
    assert snr_db(torch.from_numpy(theirs), torch.from_numpy(ours)) >= 80
