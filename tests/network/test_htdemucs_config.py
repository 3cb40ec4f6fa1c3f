"""An HT Demucs' sizes are validated, and read from options, yaml files and shapes."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import pytest
import torch

from bsmamba2 import ModelError
from bsmamba2_network.htdemucs import HTDemucs
from bsmamba2_network.htdemucs_config import HTDEMUCS, HTDemucsConfig
from bsmamba2_network.sizes import Shapes

OPTIONS: dict[str, Any] = {
    "sources": ["drums", "bass", "other", "vocals"],
    "audio_channels": 2,
    "samplerate": 44100,
    "segment": Fraction(39, 5),
    "channels": 48,
    "growth": 2,
    "nfft": 4096,
    "cac": True,
    "depth": 4,
    "rewrite": True,
    "multi_freqs": [],
    "freq_emb": 0.2,
    "kernel_size": 8,
    "stride": 4,
    "dconv_mode": 3,
    "bottom_channels": 512,
    "t_layers": 5,
    "t_heads": 8,
}
MSST: dict[str, Any] = {
    "audio": {"chunk_size": 485100},
    "training": {
        "segment": 11,
        "samplerate": 44100,
        "channels": 2,
        "instruments": ["vocals", "other"],
    },
    "htdemucs": {"channels": 48, "dconv_mode": 3, "bottom_channels": 512},
    "model": "htdemucs",
}


def shapes(config: HTDemucsConfig) -> Shapes:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in HTDemucs(config).state_dict().items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 20}, "width must be a multiple of 8; got 20"),
        ({"n_fft": 1024}, "n_fft must be a multiple of 2048; got 1024"),
        ({"depth": 7}, "depth must be a whole number from 1 to 6"),
        ({"bottom": -1}, "bottom must be a whole number from 0"),
        ({"bottom": 500}, "bottom must be such that the transformer's width is a multiple of 8"),
        ({"heads": 7}, "bottom must be such that the transformer's width is a multiple of 28"),
        ({"chunk": 100}, "chunk must be at least n_fft"),
        ({"stems": ()}, "stems must be 1 to 16 names"),
        ({"normalize": 1}, "normalize must be true or false"),
    ],
)
def test_the_error_names_the_invalid_size(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        HTDemucsConfig(**change)


@pytest.mark.parametrize("name", HTDEMUCS)
def test_shapes_of_a_published_size_give_it(name: str) -> None:
    assert HTDemucsConfig.from_shapes(shapes(HTDEMUCS[name])) == HTDEMUCS[name]


def test_shapes_of_another_size_give_what_they_tell() -> None:
    config = HTDemucsConfig(stems=("stem0",), n_fft=2048, width=16, depth=3, bottom=0, layers=3)
    assert HTDemucsConfig.from_shapes(shapes(config)) == config


def test_the_published_options_give_the_published_size() -> None:
    assert HTDemucsConfig.from_options(OPTIONS) == HTDEMUCS["htdemucs"]


def test_the_yaml_of_the_vocal_model_gives_its_size() -> None:
    assert HTDemucsConfig.from_msst(MSST) == HTDEMUCS["htdemucs_vocals"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("growth", 3),
        ("cac", False),
        ("multi_freqs", [0.25]),
        ("dconv_mode", 1),
        ("norm_starts", 2),
        ("t_sparse_self_attn", True),
        ("t_emb", "cape"),
        ("t_layer_scale", False),
    ],
)
def test_options_of_another_network_are_refused(option: str, value: object) -> None:
    with pytest.raises(ModelError, match=f"option {option} must be"):
        HTDemucsConfig.from_options(OPTIONS | {option: value})


@pytest.mark.parametrize(
    "change",
    [{"depth": "4"}, {"norm_starts": None}, {"samplerate": None}, {"segment": float("inf")}],
)
def test_damaged_options_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="options must be complete"):
        HTDemucsConfig.from_options(OPTIONS | change)


def test_an_option_that_is_not_stated_has_demucs_default() -> None:
    without = {name: value for name, value in OPTIONS.items() if name != "dconv_mode"}
    with pytest.raises(ModelError, match="option dconv_mode must be 3; got 1"):
        HTDemucsConfig.from_options(without)


@pytest.mark.parametrize(
    "document", [{}, {"model": {"dim": 1}}, MSST | {"training": 3}, MSST | {"htdemucs": None}]
)
def test_other_yaml_files_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="config must be"):
        HTDemucsConfig.from_msst(document)


@pytest.mark.parametrize(("size", "value"), [("width", 16), ("bottom", 0), ("stems", ("vocals",))])
def test_a_yaml_that_contradicts_the_weights_is_an_error_with_both_values(
    size: str, value: Any
) -> None:
    stated = dataclasses.replace(HTDemucsConfig(), **{size: value})
    with pytest.raises(ModelError, match="in the config and .* in the weights"):
        stated.require_agreement(shapes(HTDemucsConfig()))


def test_other_weights_are_no_htdemucs() -> None:
    with pytest.raises(ModelError, match="the weights of an HT Demucs; got the keys a, b"):
        HTDemucsConfig.from_shapes({"a": (1,), "b": (2,)})


@pytest.mark.parametrize("name", HTDEMUCS)
def test_sizes_survive_json(name: str) -> None:
    assert HTDemucsConfig.from_json(HTDEMUCS[name].to_json()) == HTDEMUCS[name]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"family": "scnet"}', '{"family": "htdemucs", "x": 1}']
)
def test_damaged_json_is_an_error(text: str) -> None:
    with pytest.raises(ModelError, match="damaged|family must be htdemucs"):
        HTDemucsConfig.from_json(text)
