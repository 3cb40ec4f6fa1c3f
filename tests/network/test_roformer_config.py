"""Sizes of RoFormers: validated, derived from shapes, read from MSST's yaml, and compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import ModelError
from bsmamba2.formats.msst_yaml import read_yaml
from bsmamba2_network import ROFORMERS, RoFormer, RoFormerConfig
from bsmamba2_network.roformer_config import MEL, mel_bands
from support.msst_roformer import mel_filters

FIRST_BINS = (
    0, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34, 37, 40, 43, 46, 49, 53, 56, 60, 65, 69, 74, 79,
    84, 90, 97, 103, 110, 118, 126, 135, 145, 155, 165, 177, 189, 203, 217, 232, 248, 265, 284,
    304, 325, 348, 372, 398, 426, 455, 487, 521, 558, 597, 638, 683, 731, 782, 836, 895,
)  # fmt: skip
WIDTHS = (
    7, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 9, 9, 9, 10, 10, 11, 13, 13, 13, 15, 16,
    17, 19, 20, 20, 22, 24, 26, 28, 29, 31, 33, 36, 39, 41, 44, 47, 50, 54, 57, 61, 66, 71, 76, 80,
    86, 93, 99, 105, 113, 122, 130,
)  # fmt: skip

Shapes = dict[str, tuple[int, ...]]


def shapes_of(config: RoFormerConfig) -> Shapes:
    with torch.device("meta"):
        net = RoFormer(config)
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def yaml_of(config: RoFormerConfig) -> dict[str, Any]:
    """A yaml as MSST writes it."""
    is_mel = config.family == MEL
    model: dict[str, Any] = {
        "dim": config.dim,
        "depth": config.depth,
        "stereo": True,
        "num_stems": len(config.stems),
        "time_transformer_depth": config.time_depth,
        "freq_transformer_depth": config.band_depth,
        "linear_transformer_depth": config.linear_depth,
        "stft_hop_length": config.hop,
        "mask_estimator_depth": config.mask_layers + (not is_mel),
        "mlp_expansion_factor": config.mask_expand,
        "zero_dc": config.zero_dc,
        "stft_normalized": False,
        "flash_attn": True,
    }
    model |= {"num_bands": len(config.bands)} if is_mel else {"freqs_per_bands": config.bands}
    training = {"instruments": list(config.stems), "target_instrument": None}
    return {"model": model, "training": training, "audio": {"chunk_size": config.chunk}}


def test_the_published_mel_bands_are_those_of_the_table() -> None:
    assert mel_bands(60) == list(zip(FIRST_BINS, WIDTHS, strict=True))


@given(
    count=st.integers(1, 80),
    sample_rate=st.sampled_from([22050, 32000, 44100, 48000, 96000]),
    n_fft=st.sampled_from([1024, 2048, 4096, 3000]),
)
def test_mel_bands_are_the_positive_weights_of_the_filter_bank(
    count: int, sample_rate: int, n_fft: int
) -> None:
    weights = mel_filters(sr=sample_rate, n_fft=n_fft, n_mels=count) > 0
    weights[0, 0] = weights[-1, -1] = True
    if not weights.any(axis=1).all():
        with pytest.raises(ModelError, match="bands must be few enough"):
            mel_bands(count, sample_rate, n_fft)
        return
    for row, (first, width) in zip(weights, mel_bands(count, sample_rate, n_fft), strict=True):
        assert row.nonzero()[0].tolist() == list(range(first, first + width))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "bandit"}, "family must be bs_roformer or mel_band_roformer; got 'bandit'"),
        ({"bands": (1, 2)}, "bands must be widths that add up to n_fft / 2 \\+ 1 = 1025"),
        ({"bands": ()}, "bands must be 1 to 1024 widths; got 0"),
        ({"family": MEL}, "bands must be those of the mel scale at 44100 Hz and n_fft 2048"),
        ({"head_dim": 63}, "head_dim must be an even number; got 63"),
        ({"depth": 0}, "depth must be a whole number from 1 to 64; got 0"),
        ({"mask_layers": -1}, "mask_layers must be a whole number from 0 to 8"),
        ({"mask_expand": 1.5}, "mask_expand must be a whole number"),
        ({"skip_connection": 1}, "skip_connection must be true or false; got 1"),
        ({"stems": ()}, "stems must be 1 to 16 names"),
        ({"hop": 513}, "hop must be at most 512"),
        ({"chunk": 100}, "chunk must be at least n_fft = 2048"),
    ],
)
def test_the_error_names_the_invalid_size(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        RoFormerConfig(**change)


@pytest.mark.parametrize("config", ROFORMERS.values(), ids=ROFORMERS)
def test_shapes_give_back_each_published_size(config: RoFormerConfig) -> None:
    assert RoFormerConfig.from_shapes(shapes_of(config)) == config


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 96, "time_depth": 2, "band_depth": 3, "linear_depth": 1},
        {"heads": 4, "head_dim": 32, "mask_layers": 3, "mask_expand": 2},
        {"mask_layers": 0},
        {"stems": ("stem0", "stem1")},
    ],
)
def test_shapes_give_back_any_size_that_they_determine(change: dict[str, Any]) -> None:
    for config in (RoFormerConfig(dim=64, depth=2), ROFORMERS["mel_band_roformer_384x6"]):
        changed = replace(config, **{"dim": 64, "depth": 2} | change)
        assert RoFormerConfig.from_shapes(shapes_of(changed)) == changed


@pytest.mark.parametrize("key", ["final_norm.gamma", "layers.0.2.layers.0.0.norm.gamma"])
def test_keys_of_another_layout_are_refused(key: str) -> None:
    with pytest.raises(ModelError, match="RoFormer in MSST's layout; got the keys"):
        RoFormerConfig.from_shapes({key: (8,)})


@pytest.mark.parametrize("config", ROFORMERS.values(), ids=ROFORMERS)
def test_a_yaml_of_a_published_size_gives_it_and_agrees_with_its_weights(
    config: RoFormerConfig,
) -> None:
    read = RoFormerConfig.from_msst(yaml_of(config))
    assert read == config
    read.require_agreement(shapes_of(config))


@pytest.mark.parametrize("config", ROFORMERS.values(), ids=ROFORMERS)
def test_sizes_survive_json(config: RoFormerConfig) -> None:
    assert RoFormerConfig.from_json(config.to_json()) == config


def test_missing_fields_of_a_yaml_have_mssts_defaults() -> None:
    config = RoFormerConfig.from_msst({"model": {"dim": 8, "depth": 1, "num_bands": 60}})
    assert (config.family, config.hop, config.time_depth, config.mask_layers) == (MEL, 512, 2, 1)
    assert (config.channels, config.zero_dc, config.heads, config.head_dim) == (1, True, 8, 64)
    assert RoFormerConfig.from_msst({"model": {"dim": 8, "depth": 1}}).mask_layers == 1


def test_mssts_tuple_tag_and_chunk_of_the_inference_section_are_read(tmp_path: Path) -> None:
    bands = "\n".join(f"  - {width}" for width in RoFormerConfig().bands)
    text = f"model:\n  dim: 8\n  depth: 1\n  freqs_per_bands: !!python/tuple\n{bands}\n"
    text += "audio: {chunk_size: 352800}\ninference: {chunk_size: 131584}\n"
    (tmp_path / "m.yaml").write_text(text)
    config = RoFormerConfig.from_msst(read_yaml(tmp_path / "m.yaml"))
    assert (config.bands, config.chunk) == (RoFormerConfig().bands, 131584)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_pope": True}, "model.use_pope must be False; got True"),
        ({"stft_normalized": True}, "model.stft_normalized must be False; got True"),
        ({"stft_win_length": 1024}, "model.stft_win_length must be 2048; got 1024"),
        ({"num_stems": 3}, r"name 3 stems \(model.num_stems\); got vocals"),
        ({"num_bands": "x"}, "bands must be 1 to 1024 bands; got 'x'"),
        ({"dim": None}, "dim must be a whole number"),
    ],
)
def test_yaml_that_cannot_be_used_is_refused(change: dict[str, Any], message: str) -> None:
    document = yaml_of(ROFORMERS["bs_roformer_512x12"])
    document["model"] |= change
    with pytest.raises(ModelError, match=message):
        RoFormerConfig.from_msst(document)


def test_a_yaml_of_the_other_family_is_refused() -> None:
    for name, other in (("bs_roformer_256x12", MEL), ("mel_band_roformer_384x6", "bs_roformer")):
        with pytest.raises(ModelError, match=r"as the weights are; got one of a"):
            RoFormerConfig.from_msst(yaml_of(ROFORMERS[name]), other)


def test_a_contradiction_names_the_size_in_the_yaml_and_in_the_weights() -> None:
    config = ROFORMERS["bs_roformer_384x12"]
    shapes = shapes_of(replace(config, dim=64, mask_expand=2))
    with pytest.raises(ModelError) as error:
        config.require_agreement(shapes)
    error.match("dim is 384 in the config and 64 in the weights")
    error.match("mask_expand is 4 in the config and 2 in the weights")
