"""Tells the network of a checkpoint from the names of its tensors, and its main sizes from shapes.

The rules are in order: a variant that is not supported is found before the network that it
resembles. Names are those of Music-Source-Separation-Training (MSST) and of demucs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from bsmamba2.errors import ModelError, printable

_ROFORMER = r"layers\.0\.[01]\.layers\.0\.0\.to_qkv\.(0\.)?weight"

_REFUSED = (
    (
        r"(BN_mask|separator_mask)\.",
        "TS-BSMamba2 (arXiv 2409.06245), another network with a similar name",
    ),
    (r".*\.mixer\.x_proj\.", "a band-split Mamba of the first version, not Mamba2"),
    (r"mask_estimators\.0\.segm\.", "HyperACE, whose mask estimator holds a segmentation network"),
    (r".*\.pope_embed\.", "BS PolarFormer, which has PoPE instead of rotary embeddings"),
    (r"(.*\.)?linear_\d+_bias_0|.*\.to_qkv\.bias", "the shared-bias variant of BS-RoFormer"),
    (
        r".*to_value_residual_mix|.*\.branch\.",
        "a RoFormer with value residuals or hyper-connections; only MSST's layout is supported",
    ),
    (
        r"layers\.\d+\.\d+\.layers\.\d+\.(ff1|conv)\.",
        "a Conformer, which has convolutions where a RoFormer has none",
    ),
    (r"pos_embed_f|mask_layer\.", "the masked variant of SCNet"),
    (r"separation_net\.dp_modules\.0\.time_layer\.", "the transformer variant of SCNet"),
    (r"(sd_blocks|su_blocks|dualpath_blocks)\.", "an unofficial variant of SCNet"),
    (
        r"encoder_blocks\.0\.tfc_tdf\.|bottleneck_block\.|encoder_blocks\.0\.0\.",
        "MDX23C (TFC-TDF v3)",
    ),
)

_SUPPORTED = (
    (r"layers\.0\.0\.forward_blocks\.0\.mixer\.A_log", "bs_mamba2"),
    (r"crosstransformer\.layers\.0\.self_attn\.in_proj_weight", "htdemucs"),
    (r"separation_net\.dp_modules\.0\.lstm_layers\.0\.weight_ih_l0", "scnet"),
)

TITLES = {
    "bs_mamba2": "BSMamba2",
    "bs_roformer": "BS-RoFormer",
    "mel_band_roformer": "Mel-Band RoFormer",
    "scnet": "SCNet",
    "htdemucs": "HT Demucs",
}
"""The names that papers use, by family."""


def recognise(names: Iterable[str], source: object) -> str:
    """Returns the family of a checkpoint.

    Args:
        names: the names of its tensors, without prefixes of wrapping modules.
        source: what the message calls the checkpoint.

    Raises:
        ModelError: the network is not supported; the message says which it is, if it is known.
    """
    known = tuple(names)
    for pattern, network in _REFUSED:
        if _any(known, pattern):
            raise ModelError(
                f"{source} is a checkpoint of {network}: use one of {', '.join(TITLES.values())}"
            )
    for pattern, family in _SUPPORTED:
        if _any(known, pattern):
            return family
    if _any(known, _ROFORMER):
        return _which_roformer(known, source)
    if _any(known, r"tencoder\.|encoder\.0\.conv\.|encoder\.0\.0\.(weight|bias)$"):
        raise ModelError(
            f"{source} is a checkpoint of Hybrid Demucs (v3) or an older Demucs: of these, only HT "
            "Demucs (v4) is supported"
        )
    first = printable(", ".join(known[:3]))
    raise ModelError(
        f"{source} is not a checkpoint of a supported network ({', '.join(TITLES.values())}); its "
        f"first tensors are {first}: choose another file"
    )


def offline_only(family: str) -> str:
    """Returns why a network cannot run with a lookahead."""
    return (
        f"lookahead_ms must be None with a {TITLES[family]}, which looks at whole chunks in both "
        "directions: leave it out, and the stream runs the chunks of separate"
    )


def _which_roformer(names: tuple[str, ...], source: object) -> str:
    if _any(names, r"layers\.0\.2\.") and not _any(names, r"layers\.0\.0\."):
        raise ModelError(
            f"{source} is a RoFormer in an older order, whose layers start at layers.0.1: rename "
            "layers.N.1 to layers.N.0 and layers.N.2 to layers.N.1"
        )
    if "final_norm.gamma" in names:
        return "bs_roformer"
    if _any(names, r"layers\.0\.\d\.norm\.gamma$"):
        return "mel_band_roformer"
    raise ModelError(
        f"{source} is a RoFormer that is neither BS-RoFormer (it has no final_norm.gamma) nor "
        "Mel-Band RoFormer (it has no layers.0.0.norm.gamma): it is incomplete, or another variant"
    )


def stated_sizes(family: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Returns the sizes that both the shapes and MSST's yaml files state, by the yaml's names.

    Sizes that the shapes do not tell are left out.
    """
    sizes: dict[str, int] = {}
    if family in ("bs_mamba2", "bs_roformer", "mel_band_roformer"):
        sizes["depth"] = _count(shapes, r"layers\.(\d+)\.")
        sizes["num_stems"] = _count(shapes, r"mask_estimators\.(\d+)\.")
        split = shapes.get("band_split.to_features.0.1.weight", ())
        if len(split) == 2:
            sizes["dim"] = split[0]
    if family == "scnet":
        sizes["num_dplayer"] = _count(shapes, r"separation_net\.dp_modules\.(\d+)\.")
    return {name: size for name, size in sizes.items() if size}


def _count(names: Iterable[str], pattern: str) -> int:
    return len({match.group(1) for name in names if (match := re.match(pattern, name))})


def _any(names: Iterable[str], pattern: str) -> bool:
    compiled = re.compile(pattern)
    return any(compiled.match(name) for name in names)
