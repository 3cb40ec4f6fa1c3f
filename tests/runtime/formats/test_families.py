"""A checkpoint's network is known by the names of its tensors; others are refused by their name."""

from __future__ import annotations

import pytest

from bsmamba2.errors import ModelError
from bsmamba2.formats.families import offline_only, recognise, stated_sizes

QKV = "layers.0.0.layers.0.0.to_qkv.weight"
LSTM = "separation_net.dp_modules.0.lstm_layers.0.weight_ih_l0"


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (("layers.0.0.forward_blocks.0.mixer.A_log",), "bs_mamba2"),
        ((QKV, "final_norm.gamma"), "bs_roformer"),
        ((QKV, "layers.0.0.norm.gamma"), "mel_band_roformer"),
        (("layers.0.0.layers.0.0.to_qkv.0.weight", QKV.replace("0.0.l", "0.1.l", 1),
          "layers.0.2.layers.0.0.to_qkv.weight", "final_norm.gamma"), "bs_roformer"),
        (("tencoder.0.conv.weight", "crosstransformer.layers.0.self_attn.in_proj_weight"),
         "htdemucs"),
        ((LSTM,), "scnet"),
    ],
)  # fmt: skip
def test_every_supported_network_is_recognised(names: tuple[str, ...], family: str) -> None:
    assert recognise(names, "m.ckpt") == family


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("BN_mask.0.0.weight",), "TS-BSMamba2"),
        (("separator_mask.0.0.weight",), "TS-BSMamba2"),
        (("layers.0.mixer.x_proj.weight",), "first version"),
        ((QKV, "final_norm.gamma", "mask_estimators.0.segm.0.weight"), "HyperACE"),
        (("layers.0.0.layers.0.0.pope_embed.inv_freqs", "final_norm.gamma"), "PolarFormer"),
        ((QKV, "final_norm.gamma", "linear_62_bias_0"), "shared-bias"),
        ((QKV, QKV.replace("weight", "bias"), "final_norm.gamma"), "shared-bias"),
        ((QKV, "layers.0.0.layers.0.0.to_value_residual_mix.weight"), "value residuals"),
        ((QKV, "layers.0.0.layers.0.0.branch.norm.gamma"), "hyper-connections"),
        (("layers.0.0.layers.0.ff1.net.0.gamma",), "Conformer"),
        ((LSTM, "pos_embed_f", "mask_layer.0.weight"), "masked variant of SCNet"),
        (("separation_net.dp_modules.0.time_layer.0.weight",), "transformer variant of SCNet"),
        (("sd_blocks.0.weight",), "unofficial variant of SCNet"),
        (("encoder_blocks.0.tfc_tdf.blocks.0.shortcut.weight",), r"MDX23C"),
        (("tencoder.0.conv.weight", "encoder.0.conv.weight"), r"Hybrid Demucs \(v3\)"),
        (("encoder.0.0.weight",), "older Demucs"),
        (("layers.0.1.layers.0.0.to_qkv.weight", "layers.0.2.layers.0.0.to_qkv.weight"),
         "older order"),
        ((QKV,), "neither BS-RoFormer"),
        (("stg1_low_band_net.enc1.conv.weight", "x\x1b[2J"), "not a checkpoint of a supported"),
        ((), "not a checkpoint of a supported"),
    ],
)  # fmt: skip
def test_every_other_network_is_refused_by_its_name(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ModelError, match=f"^m.ckpt is .*{message}") as error:
        recognise(names, "m.ckpt")
    assert str(error.value).isprintable()


def test_sizes_that_a_yaml_also_states_are_read_from_shapes() -> None:
    shapes = {
        "layers.0.0.norm.gamma": (8,),
        "layers.1.0.norm.gamma": (8,),
        "mask_estimators.0.to_freqs.0.0.0.weight": (8, 8),
        "band_split.to_features.0.1.weight": (8, 28),
    }
    expected = {"depth": 2, "num_stems": 1, "dim": 8}
    assert stated_sizes("mel_band_roformer", shapes) == expected
    assert stated_sizes("scnet", {LSTM: (4, 4)}) == {"num_dplayer": 1}
    assert stated_sizes("htdemucs", {}) == {}


def test_the_refusal_of_a_lookahead_names_the_network() -> None:
    assert "lookahead_ms must be None with a SCNet" in offline_only("scnet")
