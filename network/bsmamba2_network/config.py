"""The sizes of a BSMamba2, validated on construction."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bsmamba2.errors import ModelError, printable, require
from bsmamba2.formats.checkpoint import FIRST_MIXER
from bsmamba2_network.sizes import Shapes, numbered, require_agreement

# Far above any real network: these limits reject absurd sizes from untrusted files.
_LARGEST = {
    "sample_rate": 384000,
    "channels": 2,
    "n_fft": 1 << 16,
    "hop": 1 << 14,
    "dim": 1 << 12,
    "depth": 64,
    "expand": 16,
    "head_dim": 1 << 10,
    "state_size": 1 << 10,
    "mask_expand": 16,
    "chunk": 1 << 24,
}

CONV_WIDTH = 4
"""Taps of the causal convolution in a mixer: every published network and every kernel has four."""

# 62 bands: narrow at the frequencies of vocal fundamentals, wider above.
PAPER_BANDS = (2,) * 24 + (4,) * 12 + (12,) * 8 + (24,) * 8 + (48,) * 8 + (128, 129)


@dataclass(frozen=True)
class Config:
    """Every size of the network, with its unit and the letter that the papers use for it, if any.

    The defaults are the paper's: 48,098,188 parameters.

    Raises:
        ModelError: a size is not allowed; the message names the size and what is allowed.
    """

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
    """Widths of the K bands in bins, from low to high; they add up to F."""
    dim: int = 256
    """Features per band and frame (D)."""
    depth: int = 6
    """Number of layers; each has a block along time and a block along the bands."""
    expand: int = 4
    """Width of a mixer relative to ``dim``: d_inner = expand · dim."""
    head_dim: int = 64
    """Features per head (P)."""
    state_size: int = 128
    """Columns of each head's state (N)."""
    mask_expand: int = 4
    """Hidden width of a mask estimator relative to ``dim``."""
    chunk: int = 352800
    """Length of audio that the network is trained on and run on, samples."""

    family = "bs_mamba2"
    """The kind of network, see :class:`bsmamba2.Manifest`."""
    transform = "hann"
    """The Fourier transform's rule, see :class:`bsmamba2.Manifest`."""
    fixed_length = False
    """Whether the network takes only whole chunks."""
    normalize = False
    """Whether each chunk is normalised before the network."""
    zero_dc = False
    """Whether the lowest bin of the stems is set to 0."""

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            allowed = f"a whole number from 1 to {largest}"
            require(type(value) is int and 1 <= value <= largest, name, allowed, value)
        require(1 <= len(self.stems) <= 16, "stems", "1 to 16 names", self.stems)
        require(self.n_fft % 2 == 0, "n_fft", "an even number", self.n_fft)
        # With a longer hop some samples are covered only by the near-zero ends of a window, so
        # the inverse transform would divide by almost zero.
        require(self.hop <= self.n_fft // 4, "hop", f"at most {self.n_fft // 4}", self.hop)
        require(self.chunk >= self.n_fft, "chunk", f"at least n_fft = {self.n_fft}", self.chunk)
        require(
            len(self.bands) >= 1 and min(self.bands) >= 1 and sum(self.bands) == self.bins,
            "bands",
            f"widths that add up to n_fft / 2 + 1 = {self.bins}",
            f"{len(self.bands)} bands of {sum(self.bands)} bins",
        )
        require(
            self.d_inner % self.head_dim == 0,
            "head_dim",
            f"a divisor of expand · dim = {self.d_inner}",
            self.head_dim,
        )

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

    @property
    def d_inner(self) -> int:
        """Width inside a mixer."""
        return self.expand * self.dim

    @property
    def heads(self) -> int:
        """Heads per mixer (H)."""
        return self.d_inner // self.head_dim

    @property
    def conv_channels(self) -> int:
        """Channels of the causal convolution: x, B and C."""
        return self.d_inner + 2 * self.state_size

    @classmethod
    def preset(cls, name: str) -> Config:
        """Returns a named size: ``paper``, ``medium``, ``small`` or ``tiny``.

        Raises:
            ModelError: no preset has that name.
        """
        if name not in PRESETS:
            raise ModelError(f"preset must be one of {', '.join(PRESETS)}; got {name!r}")
        return PRESETS[name]

    @classmethod
    def from_msst(cls, document: Mapping[str, Any]) -> Config:
        """Reads the sizes from a parsed yaml of Music-Source-Separation-Training (MSST).

        Raises:
            ModelError: the yaml describes another network, or a variant that is not supported.
        """
        try:
            return cls._from_msst(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = printable(repr(error))
            raise ModelError(f"config must be a complete MSST yaml; got {reason}") from None

    @classmethod
    def _from_msst(cls, document: Mapping[str, Any]) -> Config:
        model = document.get("model")
        if not isinstance(model, Mapping) or "module_type" not in model:
            raise ModelError(
                "config must be MSST's yaml of a bs_mamba2 model; got one without model.module_type"
            )
        fixed = {
            "module_type": "mamba2",
            "mamba_gmlp": False,
            "stft_normalized": False,
            "stft_win_length": model.get("stft_n_fft"),
            "mask_estimator_depth": 2,
        }
        for key, required in fixed.items():
            if model.get(key, required) != required:
                raise ModelError(f"config's model.{key} must be {required!r}; got {model[key]!r}")
        training, audio = document.get("training") or {}, document.get("audio") or {}
        stems = training.get("instruments") or ["vocals"]
        if training.get("target_instrument"):
            stems = [training["target_instrument"]]
        bands = tuple(model.get("freqs_per_bands", PAPER_BANDS))
        return cls(
            stems=tuple(stems)[: model.get("num_stems", 1)],
            sample_rate=audio.get("sample_rate", 44100),
            channels=2 if model.get("stereo", False) else 1,
            n_fft=model["stft_n_fft"],
            hop=model["stft_hop_length"],
            bands=bands,
            dim=model["dim"],
            depth=model["depth"],
            chunk=audio.get("chunk_size", 352800),
        )

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> Config:
        """Derives the sizes from the names and shapes of a network's weights.

        Hop, sample rate and chunk do not affect any shape and keep their defaults. Assumes stereo:
        a mono network with bands twice as wide has the same shapes.

        Raises:
            ModelError: these are not the weights of a BSMamba2.
        """
        found = _sizes_in(shapes)
        bands = tuple(width // 4 for width in found.pop("widths"))
        count = found.pop("stem_count")
        stems = ("vocals",) if count == 1 else tuple(f"stem{s}" for s in range(count))
        return cls(stems=stems, n_fft=2 * (sum(bands) - 1), bands=bands, **found)

    def require_agreement(self, shapes: Shapes) -> None:
        """Raises a ModelError that names a size, here and in the weights, if they contradict."""
        require_agreement(self, _sizes_in(shapes))

    def to_json(self) -> str:
        """Returns the sizes as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Reads what :meth:`to_json` wrote.

        Raises:
            ModelError: the text is not this JSON, or a size is not allowed.
        """
        try:
            fields = json.loads(text)
            width = fields.pop("conv_width", CONV_WIDTH)  # files of version 0.1.0 state it
            require(width == CONV_WIDTH, "conv_width", f"{CONV_WIDTH}", width)
            fields["stems"], fields["bands"] = tuple(fields["stems"]), tuple(fields["bands"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = printable(str(error))
            raise ModelError(f"the sizes stored with the weights are damaged: {reason}") from None


def _sizes_in(shapes: Shapes) -> dict[str, Any]:
    """Returns the attributes of :class:`Config` that shapes of weights determine, by name."""
    try:
        dim = shapes["final_norm.gamma"][0]
        heads = shapes[FIRST_MIXER + "A_log"][0]
        d_inner = shapes[FIRST_MIXER + "norm.weight"][0]
        channels = shapes[FIRST_MIXER + "conv1d.weight"][0]
        gammas = numbered(shapes, r"band_split\.to_features\.(\d+)\.0\.gamma")
        widths = tuple(shapes[f"band_split.to_features.{k}.0.gamma"][0] for k in gammas)
        hidden = shapes["mask_estimators.0.to_freqs.0.0.0.weight"][0]
    except (KeyError, IndexError, ValueError):
        first = printable(", ".join(list(shapes)[:3]))
        raise ModelError(
            f"checkpoint must hold the weights of a BSMamba2; got the keys {first}, …"
        ) from None
    if min(dim, heads, d_inner, hidden) < 1:
        raise ModelError("the checkpoint is damaged: some of its weights have size 0")
    return {
        "dim": dim,
        "depth": len(numbered(shapes, r"layers\.(\d+)\.")),
        "expand": d_inner // dim,
        "head_dim": d_inner // heads,
        "state_size": (channels - d_inner) // 2,
        "mask_expand": hidden // dim,
        "widths": widths,
        "stem_count": len(numbered(shapes, r"mask_estimators\.(\d+)\.")),
    }


PRESETS = {
    "paper": Config(),
    "medium": Config(
        bands=(4,) * 12 + (8,) * 8 + (16,) * 8 + (32,) * 8 + (128, 128, 128, 145),
        dim=96,
        depth=4,
        expand=2,
        state_size=64,
    ),
    "small": Config(
        n_fft=4096,
        hop=1024,
        bands=(8,) * 6 + (16,) * 6 + (32,) * 5 + (64,) * 4 + (128,) * 2 + (256,) * 2 + (721,),
        dim=64,
        depth=3,
        expand=2,
        state_size=64,
        mask_expand=2,
        chunk=6 * 44100,
    ),
    "tiny": Config(
        bands=(8,) * 8 + (32,) * 8 + (64,) * 8 + (193,),
        dim=32,
        depth=2,
        state_size=64,
        hop=512,
        chunk=4 * 44100,
    ),
}
"""The named sizes.

``paper`` is the published network. ``medium`` trades quality for speed. ``small`` has a longer
transform and hop, can be trained on two cores in hours, and is the one that ships with weights.
``tiny`` is for tests and first steps. All have the head dimension that the fast kernels need, 64.
"""
