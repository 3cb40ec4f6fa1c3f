"""BS-RoFormer and Mel-Band RoFormer against MSST's own code, with random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bsmamba2_network import ROFORMERS, RoFormer, RoFormerConfig
from bsmamba2_network.roformer_config import MEL, mel_bands
from support.msst_reference import snr_db
from support.msst_roformer import randomise, reference

TINY = RoFormerConfig(
    n_fft=64, hop=16, bands=(2, 2, 4, 8, 17), dim=16, depth=2, heads=2, head_dim=8, chunk=400
)
TINY_MEL = replace(
    TINY, family=MEL, n_fft=512, hop=128, chunk=1024,
    bands=tuple(width for _, width in mel_bands(12, 44100, 512)),
)  # fmt: skip

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "depths": {"depth": 3, "time_depth": 2, "band_depth": 3},
    "mask_depths": {"mask_layers": 2},
    "deep_masks": {"mask_layers": 3, "mask_expand": 2},
    "skip_connection": {"depth": 4, "skip_connection": True},
    "linear_attention": {"linear_depth": 2},
    "linear_attention_with_skips": {"depth": 3, "linear_depth": 1, "skip_connection": True},
    "zero_dc": {"zero_dc": True},
    "mono": {"channels": 1},
    "two_stems": {"stems": ("vocals", "other")},
    "six_stems": {"stems": tuple("abcdef")},
    "another_hop": {"hop": 13},
}
CASES = [
    pytest.param(replace(tiny, **change), id=f"{tiny.family}-{name}")
    for tiny in (TINY, TINY_MEL)
    for name, change in VARIANTS.items()
]


def pair(config: RoFormerConfig, **options: Any) -> tuple[nn.Module, RoFormer]:
    """MSST's network and ours with the same weights."""
    torch.manual_seed(7)
    theirs = randomise(reference(config, **options))
    ours = RoFormer(config).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


@torch.inference_mode()
def difference_db(theirs: nn.Module, ours: RoFormer, samples: int) -> float:
    config = ours.config
    waveform = torch.randn(2, config.channels, samples) + 0.1
    expected = theirs(waveform).reshape(2, len(config.stems), config.channels, samples)
    return snr_db(expected, ours(waveform))


@pytest.mark.parametrize("config", CASES)
def test_stems_agree_with_msst_to_100_db(config: RoFormerConfig) -> None:
    """The weights, which are equally many, load strictly both ways."""
    theirs, ours = pair(config)
    assert difference_db(theirs, ours, 37 * config.hop) >= 100
    assert not any(theirs.load_state_dict(ours.state_dict(), strict=True))
    counts = [sum(p.numel() for p in net.parameters()) for net in (theirs, ours)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("size", ROFORMERS)
def test_published_sizes_have_msst_s_names_shapes_and_number_of_parameters(
    size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: None)  # values do not matter
    with torch.device("meta"):
        ours = RoFormer(RoFormerConfig.preset(size))
    theirs = reference(replace(ours.config, depth=1))
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    first_layer = {key: v.shape for key, v in theirs.state_dict().items()}
    assert first_layer.items() <= shapes.items()
    published = {
        "bs_roformer_512x12": (699, 159_758_092),
        "bs_roformer_384x12": (699, 98_194_828),
        "bs_roformer_384x8_4_stems": (1355, 131_704_164),
        "bs_roformer_256x12": (699, 51_049_484),
        "bs_roformer_256x12_6_stems": (1939, 174_656_564),
        "mel_band_roformer_384x6": (684, 228_202_852),
        "mel_band_roformer_384x12": (828, 251_869_636),
        "mel_band_roformer_384x6_mask_3": (804, 369_852_772),
    }
    assert (len(shapes), sum(p.numel() for p in ours.parameters())) == published[size]


@pytest.mark.slow
@pytest.mark.parametrize("size", ["bs_roformer_256x12", "mel_band_roformer_384x6"])
def test_a_second_at_a_published_size_agrees_with_msst_to_100_db(size: str) -> None:
    config = RoFormerConfig.preset(size)
    theirs, ours = pair(replace(config, zero_dc=True))
    assert difference_db(theirs, ours, 100 * config.hop) >= 100


def test_the_dc_bin_is_silent_only_where_the_sizes_say_so() -> None:
    plain = RoFormer(TINY).eval()
    silent = RoFormer(replace(TINY, zero_dc=True)).eval()
    silent.load_state_dict(plain.state_dict())
    waveform = torch.ones(1, 2, 320)
    with torch.inference_mode():
        one, other = plain(waveform), silent(waveform)
    assert not torch.equal(one, other)


@torch.inference_mode()
def test_silence_stays_silence_and_any_length_is_kept() -> None:
    net = RoFormer(TINY_MEL).eval()
    for samples in (0, 1, 127, 128, 1000):
        stems = net(torch.zeros(1, 2, samples))
        assert stems.shape == (1, 1, 2, samples)
        assert not stems.any()


@torch.inference_mode()
def test_items_of_a_batch_do_not_affect_each_other() -> None:
    net = RoFormer(TINY).eval()
    batch = torch.randn(2, 2, 300)
    alone = torch.cat([net(item[None]) for item in batch])
    torch.testing.assert_close(net(batch), alone, rtol=1e-4, atol=1e-5)


def test_a_call_does_not_depend_on_earlier_calls_of_other_lengths() -> None:
    net = RoFormer(TINY).eval()
    waveform = torch.randn(1, 2, 900)

    def run(samples: int) -> Tensor:
        with torch.inference_mode():
            result: Tensor = net(waveform[..., :samples])
        return result

    first = run(900)
    run(200)
    assert torch.equal(run(900), first)


def test_the_same_seed_gives_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROFORMERS, "tiny", TINY)
    one, same, other = (RoFormer.untrained("tiny", seed).band_split for seed in (3, 3, 4))
    weights = [net.to_features[0].get_parameter("1.weight") for net in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
