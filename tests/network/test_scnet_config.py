"""An SCNet's sizes are validated, and read from yaml files and from shapes."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
import torch

from bsmamba2 import ModelError
from bsmamba2_network.scnet import SCNet
from bsmamba2_network.scnet_config import SCNETS, SCNetConfig
from bsmamba2_network.sizes import Shapes

MODEL: dict[str, Any] = {
    "sources": ["drums", "bass", "other", "vocals"],
    "audio_channels": 2,
    "dims": [4, 64, 128, 256],
    "nfft": 4096,
    "hop_size": 1024,
    "win_size": 4096,
    "normalized": True,
    "band_SR": [0.230, 0.370, 0.400],
    "band_stride": [1, 4, 4],
    "band_kernel": [3, 4, 4],
    "conv_depths": [3, 3, 3],
    "compress": 4,
    "conv_kernel": 3,
    "num_dplayer": 8,
    "expand": 1,
}
MSST = {
    "audio": {"chunk_size": 485100, "sample_rate": 44100},
    "model": MODEL,
    "training": {"instruments": MODEL["sources"]},
    "inference": {"normalize": False},
}


def shapes(config: SCNetConfig) -> Shapes:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in SCNet(config).state_dict().items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"band_fractions": (0.2, 0.4)}, "band_fractions must be 3 fractions"),
        ({"band_fractions": (0.2, 0.4, 0.5)}, "band_fractions must be 3 fractions"),
        ({"band_fractions": (0.2, float("nan"), 0.4)}, "band_fractions must be 3 fractions"),
        ({"strides": (1, 4)}, "strides must be 3 whole numbers"),
        ({"strides": (3, 4, 16)}, "strides must be 1, 2, 4 or more"),
        ({"widths": (32, 30)}, "widths must be .* multiples of 4"),
        ({"widths": ()}, "widths must be some whole numbers"),
        ({"widths": (4,) * 9}, "widths must be at most 8 stages"),
        ({"conv_depths": (3, 2, 0)}, "conv_depths must be 3 whole numbers from 1"),
        ({"dual_paths": 3}, "dual_paths must be even"),
        ({"n_fft": 4098}, "n_fft must be a multiple of 4"),
        ({"hop": 2048}, "hop must be at most 1024"),
        ({"chunk": 100}, "chunk must be at least n_fft"),
        ({"stems": ()}, "stems must be 1 to 16 names"),
        ({"normalize": 1}, "normalize must be true or false"),
        ({"band_fractions": (0.0001, 0.0001, 0.9998)}, "bands of at least one row"),
    ],
)
def test_the_error_names_the_invalid_size(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        SCNetConfig(**change)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("scnet_small", (616, 186, 57)),
        ("scnet_large", (705, 243, 85)),
        ("scnet_xl", (714, 249, 88)),
        ("scnet_xl_ihf", (867, 368, 156)),
    ],
)
def test_the_encoders_of_the_published_sizes_have_the_published_rows(
    name: str, rows: tuple[int, ...]
) -> None:
    config = SCNETS[name]
    after = [
        sum(-(-n // stride) for n, stride in zip(bands, config.strides, strict=True))
        for bands in config.band_rows
    ]
    assert tuple(after) == rows


@pytest.mark.parametrize("name", SCNETS)
def test_shapes_of_a_published_size_give_it_without_a_guess(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert SCNetConfig.from_shapes(shapes(SCNETS[name])) == SCNETS[name]
    assert not caplog.records


@pytest.mark.parametrize("name", SCNETS)
def test_shapes_of_another_size_give_the_nearest_division_and_a_warning(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(SCNETS[name], stems=("stem0", "stem1"), normalize=False)
    with caplog.at_level(logging.WARNING, "bsmamba2"):
        found = SCNetConfig.from_shapes(shapes(config))
    assert found == config
    assert name in caplog.text
    assert str(config.band_fractions[0]) in caplog.text


def test_the_published_yaml_gives_the_published_size() -> None:
    assert SCNetConfig.from_msst(MSST) == SCNETS["scnet_xl_ihf"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": [6, 64, 128, 256]}, "model.dims must be"),
        ({"win_size": 2048}, "model.win_size must be 4096; got 2048"),
        ({"normalized": False}, "model.normalized must be True; got False"),
        ({"band_kernel": [3, 8, 4]}, "model.band_kernel must be"),
        ({"compress": 2}, "model.compress must be 4; got 2"),
        ({"conv_kernel": 5}, "model.conv_kernel must be 3; got 5"),
        ({"expand": 2}, "model.expand must be 1; got 2"),
        ({"dims": 4}, "config must be a complete MSST yaml"),
    ],
)
def test_msst_variants_that_are_another_network_are_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        SCNetConfig.from_msst(MSST | {"model": MODEL | change})


def test_the_yaml_of_another_network_is_refused() -> None:
    with pytest.raises(ModelError, match="model.band_SR"):
        SCNetConfig.from_msst({"model": {"dim": 256}})


@pytest.mark.parametrize("size", ["dual_paths", "widths", "strides", "conv_depths"])
def test_a_yaml_that_contradicts_the_weights_is_an_error_with_both_values(size: str) -> None:
    small, ihf = SCNETS["scnet_small"], SCNETS["scnet_xl_ihf"]
    stated = dataclasses.replace(small, **{size: getattr(ihf, size)})
    with pytest.raises(ModelError, match=f"{size} is .* in the config and .* in the weights"):
        stated.require_agreement(shapes(small))


def test_other_weights_are_no_scnet() -> None:
    with pytest.raises(ModelError, match="must hold the weights of an SCNet; got the keys a, b"):
        SCNetConfig.from_shapes({"a": (1,), "b": (2,)})


@pytest.mark.parametrize("name", SCNETS)
def test_sizes_survive_json(name: str) -> None:
    assert SCNetConfig.from_json(SCNETS[name].to_json()) == SCNETS[name]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"family": "htdemucs"}', '{"family": "scnet", "x": 1}']
)
def test_damaged_json_is_an_error(text: str) -> None:
    with pytest.raises(ModelError, match="damaged|family must be scnet"):
        SCNetConfig.from_json(text)
