"""Packed data sets and runs: small, in their original layout, and sufficient to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError
from bsmamba2_training.layout import songs, training_pools
from bsmamba2_training.loop import train
from bsmamba2_training.metrics import usdr_db
from bsmamba2_training.mixing import Mixtures
from bsmamba2_training.packing import pack, shrink
from bsmamba2_training.run import Plan, Run

CPU = torch.device("cpu")
RATE = 44100


@pytest.fixture(scope="module")
def packed(pooled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pooled data set in at most 0.6 MB."""
    folder = tmp_path_factory.mktemp("packed")
    pack(pooled, folder, 0.6, leg=0)
    return folder


def test_a_pack_keeps_to_its_size_and_can_be_trained_on(packed: Path) -> None:
    size = sum(path.stat().st_size for path in packed.rglob("*.ogg"))
    assert 0.2e6 < size < 0.6e6
    mixture, vocals, _ = Mixtures(training_pools(packed), 4410, seed=0)[1]
    assert mixture.any()
    assert vocals.shape == (2, 4410)


def test_a_packed_song_is_the_sum_of_its_stems_and_its_voice_is_close_to_the_original(
    packed: Path, pooled: Path
) -> None:
    (packed_song,), (original,) = songs(packed, "valid"), songs(pooled, "valid")
    mixture, vocals, instrumental = packed_song.stems()
    np.testing.assert_allclose(mixture, vocals + instrumental, atol=1e-6)
    assert usdr_db(original.stems()[1], vocals) > 15


def test_songs_are_packed_as_songs_with_every_stem(
    tmp_path: Path, hiss: Callable[..., Audio]
) -> None:
    for name in ("train/a", "train/b", "valid/c"):
        for stem in ("vocals", "drums", "bass"):
            path = tmp_path / "set" / name / f"{stem}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, hiss(2, 2).T, RATE, "PCM_16")
    pack(tmp_path / "set", tmp_path / "pack", 0.5, leg=0)
    pools = training_pools(tmp_path / "pack")
    assert pools.has_own_levels
    assert len(pools.instruments) == 2
    assert len(songs(tmp_path / "pack", "valid")) == 1


def test_a_size_too_small_for_an_excerpt_of_each_stem_is_refused(
    pooled: Path, tmp_path: Path
) -> None:
    with pytest.raises(AudioError, match=r"megabytes must be enough .*; got 0\.001"):
        pack(pooled, tmp_path, 0.001, leg=0)


def test_a_run_resumes_from_a_packed_state_with_the_same_weights(
    pooled: Path, tmp_path: Path
) -> None:
    plan = Plan(preset="micro", steps=3, batch=1, segment_s=0.1, loss_hop=512, valid_s=10)
    run = Run(tmp_path, plan, CPU)
    train(run, pooled, minutes=0)
    size = (tmp_path / "state.pt").stat().st_size
    shrink(tmp_path / "state.pt", tmp_path / "state.pt")
    resumed = Run(tmp_path, plan, CPU)
    assert (tmp_path / "state.pt").stat().st_size < 0.9 * size
    assert resumed.step == run.step
    for name in ("net", "average"):
        after, before = getattr(resumed, name).parameters(), getattr(run, name).parameters()
        assert all(torch.equal(*pair) for pair in zip(after, before, strict=True))
    assert train(resumed, pooled)
