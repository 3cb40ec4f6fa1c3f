"""Sizes are validated when a Config is built."""

from __future__ import annotations

from typing import Any

import pytest

from bsmamba2 import ModelError
from bsmamba2_network import PRESETS, Config

MSST: dict[str, dict[str, Any]] = {
    "audio": {"sample_rate": 44100, "chunk_size": 352800},
    "training": {"instruments": ["vocals", "other"], "target_instrument": "vocals"},
    "model": {
        "module_type": "mamba2",
        "dim": 256,
        "depth": 6,
        "stereo": True,
        "num_stems": 1,
        "stft_n_fft": 2048,
        "stft_hop_length": 441,
    },
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": (1, 2)}, "bands must be widths that add up to n_fft / 2 \\+ 1 = 1025"),
        ({"hop": 513}, "hop must be at most 512"),
        ({"head_dim": 60}, "head_dim must be a divisor of expand · dim = 1024"),
        ({"depth": 0}, "depth must be a whole number"),
        ({"dim": 2.5}, "dim must be a whole number"),
        ({"channels": 6}, "channels must be a whole number from 1 to 2"),
        ({"stems": ()}, "stems must be 1 to 16 names"),
    ],
)
def test_the_error_names_the_invalid_size(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Config(**change)


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_survive_json(name: str) -> None:
    assert Config.from_json(Config.preset(name).to_json()) == Config.preset(name)


def test_the_published_models_msst_yaml_gives_the_papers_sizes() -> None:
    assert Config.from_msst(MSST) == Config.preset("paper")


@pytest.mark.parametrize(
    "change",
    [
        {"module_type": "transformer"},
        {"mamba_gmlp": True},
        {"stft_normalized": True},
        {"stft_win_length": 1024},
        {"mask_estimator_depth": 3},
    ],
)
def test_msst_variants_that_are_another_network_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=next(iter(change))):
        Config.from_msst(MSST | {"model": MSST["model"] | change})


def test_the_error_for_an_unknown_preset_lists_the_presets() -> None:
    with pytest.raises(ModelError, match="paper, medium, small, tiny"):
        Config.preset("huge")
