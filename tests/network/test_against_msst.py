"""The network and the chunks against Music-Source-Separation-Training's own code."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ml_collections import ConfigDict

from bsmamba2 import Manifest
from bsmamba2.pipeline.overlap_add import OverlapAdd
from bsmamba2_network import BSMamba2
from support.msst_reference import published_model, snr_db


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(7)
    return published_model()


@pytest.fixture(scope="module")
def ours(theirs):
    net = BSMamba2().eval()
    net.load_state_dict(theirs.state_dict(), strict=True)
    return net


def masks_of(model, waveform):
    """What the mask estimator returns while the model runs, and what the model returns."""
    seen = []
    handle = model.mask_estimators[0].register_forward_hook(lambda *call: seen.append(call[2]))
    with handle, torch.inference_mode():
        stems = model(waveform)
    return seen[0], stems


def test_strict_loading_works_both_ways(ours, theirs):
    assert not any(theirs.load_state_dict(ours.state_dict(), strict=True))


def test_masks_and_stems_are_the_originals_to_100_db(ours, theirs):
    waveform = torch.randn(1, 2, 5512, generator=torch.Generator().manual_seed(1))
    wanted, found = masks_of(theirs, waveform), masks_of(ours, waveform)
    assert snr_db(wanted[0], found[0]) >= 100
    assert snr_db(wanted[1].reshape(-1), found[1].reshape(-1)) >= 100


def drifting(chunk):
    """Depends on where in the chunk a sample stands, so that the joins matter."""
    ramp = np.linspace(0.5, 1.5, chunk.shape[-1], dtype=np.float32)
    return np.tanh(chunk * ramp)[np.newaxis]


class TheirModel(torch.nn.Module):
    def forward(self, batch):
        return torch.stack([torch.from_numpy(drifting(item.numpy())) for item in batch])


@pytest.mark.parametrize("num_overlap", [2, 4])
def test_chunks_with_their_windows_are_their_chunks_to_80_db(num_overlap):
    """They pad the song by a chunk less a step on both sides and cut it off again; so here."""
    from msst.utils.model_utils import _getWindowingArray, demix

    chunk, mixture = 400, np.random.default_rng(0).normal(size=(2, 2000)).astype(np.float32)
    step = chunk // num_overlap
    config = {"inference": {"num_overlap": num_overlap, "batch_size": 1}}
    config |= {"audio": {"chunk_size": chunk}, "training": {"instruments": ["vocals"]}}
    theirs = demix(ConfigDict(config), TheirModel(), mixture, "cpu", "bs_mamba2")["vocals"]

    manifest = Manifest("stub", chunk=chunk, n_fft=16, hop=4)
    engine = SimpleNamespace(manifest=manifest, run=drifting, device="cpu")
    window = np.maximum(_getWindowingArray(chunk, chunk // 10).double().numpy(), 1e-9)
    stream = OverlapAdd(engine, 1 - 1 / num_overlap, window)
    border = chunk - step
    padded = np.pad(mixture, [(0, 0), (border, border)], mode="reflect")
    ours = np.concatenate([stream.push(padded), stream.flush()], axis=-1)[0, :, border:-border]
    assert snr_db(torch.from_numpy(theirs), torch.from_numpy(ours)) >= 80
