"""The sizes of a BS-RoFormer or Mel-Band RoFormer, validated on construction."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bsmamba2.errors import ModelError, not_one_of, printable, require
from bsmamba2_network.config import PAPER_BANDS
from bsmamba2_network.sizes import Shapes, numbered, require_agreement

BS, MEL = "bs_roformer", "mel_band_roformer"
FAMILIES = {BS: "BS-RoFormer", MEL: "Mel-Band RoFormer"}
"""The two families with the names that people know them by."""

# Far above any real network: these limits reject absurd sizes from untrusted files.
_LARGEST = {
    "sample_rate": 384000,
    "channels": 2,
    "n_fft": 1 << 16,
    "hop": 1 << 14,
    "dim": 1 << 12,
    "depth": 64,
    "time_depth": 16,
    "band_depth": 16,
    "heads": 256,
    "head_dim": 1 << 10,
    "mask_expand": 16,
    "chunk": 1 << 24,
}
_OPTIONAL = {"linear_depth": 16, "mask_layers": 8}
"""Limits of the sizes that may also be 0."""

_STEMS = {
    1: ("vocals",),
    4: ("drums", "bass", "other", "vocals"),
    6: ("bass", "drums", "other", "vocals", "guitar", "piano"),
}
"""The published stems by their number."""


@dataclass(frozen=True)
class RoFormerConfig:
    """Every size of the network, with its unit and the letter that the papers use for it, if any.

    Raises:
        ModelError: a size is not allowed; the message names the size and what is allowed.
    """

    family: str = BS
    """``bs_roformer``: bands side by side. ``mel_band_roformer``: overlapping bands on the mel
    scale, and a norm after each transformer instead of one at the end."""
    stems: tuple[str, ...] = ("vocals",)
    """Names of the stems, one mask estimator each, in this order."""
    sample_rate: int = 44100
    """Sample rate, Hz."""
    channels: int = 2
    """Audio channels, 1 or 2."""
    n_fft: int = 2048
    """Length of the window and the transform, samples; a frame has n_fft / 2 + 1 bins (F)."""
    hop: int = 441
    """Distance between frames, samples."""
    bands: tuple[int, ...] = PAPER_BANDS
    """Widths of the K bands in bins, from low to high. A BS-RoFormer's add up to F; a Mel-Band
    RoFormer's are those of :func:`mel_bands`."""
    dim: int = 384
    """Features per band and frame (D)."""
    depth: int = 6
    """Number of layers; each has a transformer along time and one along the bands."""
    time_depth: int = 1
    """Blocks in each transformer along time."""
    band_depth: int = 1
    """Blocks in each transformer along the bands."""
    linear_depth: int = 0
    """Blocks of linear attention in front of each layer; 0 in every published network."""
    heads: int = 8
    """Heads of an attention (H)."""
    head_dim: int = 64
    """Features per head (P)."""
    mask_layers: int = 1
    """Hidden layers of a mask estimator."""
    mask_expand: int = 4
    """Width of those hidden layers relative to ``dim``."""
    skip_connection: bool = False
    """Whether each layer also gets the sum of the outputs of all earlier layers."""
    zero_dc: bool = False
    """Whether the lowest bin of the stems is set to 0, outside the exported spectrum graph."""
    chunk: int = 352800
    """Length of audio that the network is trained on and run on, samples."""

    transform = "hann"
    """The Fourier transform's rule, see :class:`bsmamba2.Manifest`."""
    fixed_length = False
    """Whether the network takes only whole chunks."""
    normalize = False
    """Whether each chunk is normalised before the network."""

    def __post_init__(self) -> None:
        require(self.family in FAMILIES, "family", " or ".join(FAMILIES), self.family)
        limits = {name: (1, largest) for name, largest in _LARGEST.items()}
        limits |= {name: (0, largest) for name, largest in _OPTIONAL.items()}
        for name, (least, largest) in limits.items():
            value = getattr(self, name)
            allowed = f"a whole number from {least} to {largest}"
            require(type(value) is int and least <= value <= largest, name, allowed, value)
        for name in ("skip_connection", "zero_dc"):
            value = getattr(self, name)
            require(type(value) is bool, name, "true or false", value)
        require(1 <= len(self.stems) <= 16, "stems", "1 to 16 names", self.stems)
        require(self.n_fft % 2 == 0, "n_fft", "an even number", self.n_fft)
        require(self.hop <= self.n_fft // 4, "hop", f"at most {self.n_fft // 4}", self.hop)
        require(self.chunk >= self.n_fft, "chunk", f"at least n_fft = {self.n_fft}", self.chunk)
        require(self.head_dim % 2 == 0, "head_dim", "an even number", self.head_dim)
        require(1 <= len(self.bands) <= 1 << 10, "bands", "1 to 1024 widths", len(self.bands))
        got = f"{len(self.bands)} bands of {sum(self.bands)} bins"
        if self.family == MEL:
            allowed = f"those of the mel scale at {self.sample_rate} Hz and n_fft {self.n_fft}"
            expected = mel_bands(len(self.bands), self.sample_rate, self.n_fft)
            require(self.bands == tuple(width for _, width in expected), "bands", allowed, got)
        else:
            allowed = f"widths that add up to n_fft / 2 + 1 = {self.bins}"
            require(min(self.bands) >= 1 and sum(self.bands) == self.bins, "bands", allowed, got)

    @property
    def bins(self) -> int:
        """Frequency bins per frame (F)."""
        return self.n_fft // 2 + 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers per frame of each band: its bins, times the channels, times two."""
        return tuple(2 * self.channels * bins for bins in self.bands)

    @property
    def stem_count(self) -> int:
        """Number of stems."""
        return len(self.stems)

    @classmethod
    def preset(cls, name: str) -> RoFormerConfig:
        """Returns a published size.

        Raises:
            ModelError: no preset has that name.
        """
        if name not in ROFORMERS:
            raise ModelError(not_one_of("size", ROFORMERS, name))
        return ROFORMERS[name]

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> RoFormerConfig:
        """Derives the sizes from the names and shapes of a network's weights.

        Hop, chunk, stems' names, ``skip_connection`` and ``zero_dc`` do not affect any shape. They
        are those of the published network of the same size, or else the defaults. Assumes 44.1 kHz
        and stereo.

        Raises:
            ModelError: these are not the weights of such a network.
        """
        found = sizes_in(shapes)
        for config in ROFORMERS.values():
            if all(getattr(config, name) == size for name, size in found.items()):
                return config
        bands = tuple(width // 4 for width in found.pop("widths"))
        count = found.pop("stem_count")
        stems = _STEMS.get(count) or tuple(f"stem{s}" for s in range(count))
        n_fft = 2048 if found["family"] == MEL else 2 * (sum(bands) - 1)
        return cls(stems=stems, n_fft=n_fft, bands=bands, **found)

    @classmethod
    def from_msst(cls, document: Mapping[str, Any], family: str | None = None) -> RoFormerConfig:
        """Reads the sizes from a parsed yaml of Music-Source-Separation-Training (MSST).

        A field that the yaml does not state has MSST's default, which for ``zero_dc`` is true.

        Args:
            document: the yaml.
            family: the family of the weights. Default: ``mel_band_roformer`` if the yaml states a
                number of bands, else ``bs_roformer``.

        Raises:
            ModelError: the yaml describes another network, or a variant that is not supported.
        """
        try:
            return cls._from_msst(document, family)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = printable(repr(error))
            raise ModelError(f"config must be a complete MSST yaml; got {reason}") from None

    @classmethod
    def _from_msst(cls, document: Mapping[str, Any], family: str | None) -> RoFormerConfig:
        model = document.get("model")
        if not isinstance(model, Mapping) or not {"dim", "depth"} <= model.keys():
            raise ModelError("config must be MSST's yaml of a RoFormer; got one without model.dim")
        is_mel = "num_bands" in model
        stated = MEL if is_mel else BS
        if family is not None and (is_mel or "freqs_per_bands" in model) and family != stated:
            raise ModelError(
                f"config must be of a {FAMILIES[family]}, as the weights are; got one of a "
                f"{FAMILIES[stated]}"
            )
        family = family or stated
        training, audio = document.get("training") or {}, document.get("audio") or {}
        sample_rate = audio.get("sample_rate", 44100)
        n_fft = model.get("stft_n_fft", 2048)
        fixed = {
            "use_pope": False,
            "stft_normalized": False,
            "stft_win_length": n_fft,
            "sample_rate": sample_rate,
        }
        for key, required in fixed.items():
            if model.get(key, required) != required:
                raise ModelError(f"config's model.{key} must be {required!r}; got {model[key]!r}")
        count = model.get("num_stems", 1)
        stems = tuple(training.get("instruments") or _STEMS.get(count, ()))
        if training.get("target_instrument"):
            stems = (training["target_instrument"],)
        if len(stems) != count:
            named = printable(", ".join(map(str, stems)))
            raise ModelError(f"config must name {count} stems (model.num_stems); got {named}")
        if family == MEL:
            banks = mel_bands(model.get("num_bands", 60), sample_rate, n_fft)
            bands = tuple(width for _, width in banks)
            mask_layers = model.get("mask_estimator_depth", 1)
        else:
            bands = tuple(model.get("freqs_per_bands") or PAPER_BANDS)
            mask_layers = model.get("mask_estimator_depth", 2) - 1
        return cls(
            family=family,
            stems=stems,
            sample_rate=sample_rate,
            channels=2 if model.get("stereo", False) else 1,
            n_fft=n_fft,
            hop=model.get("stft_hop_length", 512),
            bands=bands,
            dim=model["dim"],
            depth=model["depth"],
            time_depth=model.get("time_transformer_depth", 2),
            band_depth=model.get("freq_transformer_depth", 2),
            linear_depth=model.get("linear_transformer_depth", 0),
            heads=model.get("heads", 8),
            head_dim=model.get("dim_head", 64),
            mask_layers=mask_layers,
            mask_expand=model.get("mlp_expansion_factor", 4),
            skip_connection=model.get("skip_connection", False),
            zero_dc=model.get("zero_dc", True),
            chunk=(document.get("inference") or {}).get("chunk_size")
            or audio.get("chunk_size", 352800),
        )

    def require_agreement(self, shapes: Shapes) -> None:
        """Raises a ModelError that names a size, here and in the weights, if they contradict."""
        require_agreement(self, sizes_in(shapes))

    def to_json(self) -> str:
        """Returns the sizes as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RoFormerConfig:
        """Reads what :meth:`to_json` wrote.

        Raises:
            ModelError: the text is not this JSON, or a size is not allowed.
        """
        try:
            fields = json.loads(text)
            fields["stems"], fields["bands"] = tuple(fields["stems"]), tuple(fields["bands"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = printable(str(error))
            raise ModelError(f"the sizes stored with the weights are damaged: {reason}") from None


def mel_bands(count: int, sample_rate: int = 44100, n_fft: int = 2048) -> list[tuple[int, int]]:
    """Returns each mel band's first bin and its width in bins.

    Band i spans the bins strictly between the points p_i and p_{i+2} of count + 2 points, from 0 Hz
    to half the sample rate, equally spaced on Slaney's mel scale: linear below 1000 Hz (200/3 Hz a
    step), then logarithmic (27 steps for each factor of 6.4). The lowest and the highest bin lie on
    the outer points and are counted in. Every bin is in one band or in two.

    Raises:
        ModelError: the numbers are out of range, or a band would have no bin.
    """
    require(type(count) is int and 1 <= count <= 1 << 10, "bands", "1 to 1024 bands", count)
    knee, step = 1000.0, math.log(6.4) / 27
    top = sample_rate / 2
    top_mel = top * 3 / 200 if top < knee else 15 + math.log(top / knee) / step
    mels = [top_mel * i / (count + 1) for i in range(count + 2)]
    points = [mel * 200 / 3 if mel < 15 else knee * math.exp((mel - 15) * step) for mel in mels]
    bins = n_fft // 2 + 1
    bands = []
    for i in range(count):
        low, high = (points[j] * n_fft / sample_rate for j in (i, i + 2))
        first = 0 if i == 0 else math.floor(low) + 1
        last = bins - 1 if i == count - 1 else math.ceil(high) - 1
        require(first <= last, "bands", f"few enough for n_fft {n_fft}", count)
        bands.append((first, last - first + 1))
    return bands


def sizes_in(shapes: Shapes) -> dict[str, Any]:
    """Returns the attributes of :class:`RoFormerConfig` that shapes of weights determine, by name.

    Raises:
        ModelError: these are not the weights of such a network.
    """
    try:
        return _sizes_in(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        first = printable(", ".join(list(shapes)[:3]))
        raise ModelError(
            f"checkpoint must hold the weights of a RoFormer in MSST's layout; got the keys "
            f"{first}, …"
        ) from None


def _sizes_in(shapes: Shapes) -> dict[str, Any]:
    slots = numbered(shapes, r"layers\.0\.(\d+)\.layers\.")
    has_linear = "layers.0.0.layers.0.0.temperature" in shapes
    if len(slots) != 2 + has_linear or "layers.0.0.layers.0.0.norm.gamma" not in shapes:
        raise KeyError("layers.0")
    depths = [len(numbered(shapes, rf"layers\.0\.{slot}\.layers\.(\d+)\.")) for slot in slots]
    attention = f"layers.0.{slots[-1]}.layers.0.0."
    heads, dim = shapes[attention + "to_gates.weight"]
    gammas = numbered(shapes, r"band_split\.to_features\.(\d+)\.0\.gamma")
    mask = "mask_estimators.0.to_freqs.0.0."
    linear = numbered(shapes, r"mask_estimators\.0\.to_freqs\.0\.0\.(\d+)\.weight")
    hidden = shapes[mask + "0.weight"][0]
    found = {
        "family": BS if "final_norm.gamma" in shapes else MEL,
        "dim": dim,
        "depth": len(numbered(shapes, r"layers\.(\d+)\.")),
        "time_depth": depths[-2],
        "band_depth": depths[-1],
        "linear_depth": depths[0] if has_linear else 0,
        "heads": heads,
        "head_dim": 2 * shapes[attention + "rotary_embed.freqs"][0],
        "mask_layers": len(linear) - 1,
        "widths": tuple(shapes[f"band_split.to_features.{k}.0.gamma"][0] for k in gammas),
        "stem_count": len(numbered(shapes, r"mask_estimators\.(\d+)\.")),
    }
    if found["mask_layers"]:
        found["mask_expand"] = hidden // dim
    return found


def _mel(depth: int, mask_layers: int = 2, chunk: int = 352800) -> RoFormerConfig:
    bands = tuple(width for _, width in mel_bands(60))
    return RoFormerConfig(
        family=MEL, bands=bands, depth=depth, mask_layers=mask_layers, chunk=chunk
    )


ROFORMERS = {
    "bs_roformer_512x12": RoFormerConfig(dim=512, depth=12),
    "bs_roformer_384x12": RoFormerConfig(stems=("other",), hop=512, depth=12, chunk=131584),
    "bs_roformer_384x8_4_stems": RoFormerConfig(
        stems=_STEMS[4], depth=8, mask_expand=2, chunk=485100
    ),
    "bs_roformer_256x12": RoFormerConfig(hop=512, dim=256, depth=12, chunk=960000),
    "bs_roformer_256x12_6_stems": RoFormerConfig(
        stems=_STEMS[6], hop=512, dim=256, depth=12, chunk=588800
    ),
    "mel_band_roformer_384x6": _mel(6),
    "mel_band_roformer_384x12": _mel(12),
    "mel_band_roformer_384x6_mask_3": _mel(6, mask_layers=3, chunk=485100),
}
"""The published sizes: D × depth, and what else distinguishes them."""
