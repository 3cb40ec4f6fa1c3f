"""Sizes of a BSMamba2, validated once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bsmamba2.errors import ModelError, printable

# No network is this large; what a stranger's file says is.
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
    "conv_width": 4,
    "mask_expand": 16,
    "chunk": 1 << 24,
}

# 62 bands, narrow where voices have their fundamentals, wide above.
PAPER_BANDS = (2,) * 24 + (4,) * 12 + (12,) * 8 + (24,) * 8 + (48,) * 8 + (128, 129)


@dataclass(frozen=True)
class Config:
    """Every size of the network, with its unit and, where the papers have one, its letter.

    The defaults are the paper's: 48,098,188 parameters.

    Raises:
        ModelError: a size does not fit; the message names it and what would.
    """

    stems: tuple[str, ...] = ("vocals",)
    """One mask estimator a stem, in this order."""
    sample_rate: int = 44100
    """Hz."""
    channels: int = 2
    """Of the audio: 1 or 2."""
    n_fft: int = 2048
    """Window and transform, samples; a frame has n_fft / 2 + 1 bins (F)."""
    hop: int = 441
    """From frame to frame, samples."""
    bands: tuple[int, ...] = PAPER_BANDS
    """Widths in bins, from low to high (K of them); together all bins."""
    dim: int = 256
    """Features a band and frame (D)."""
    depth: int = 6
    """Layers; each holds a block along time and one along the bands."""
    expand: int = 4
    """Width of a mixer over ``dim``: d_inner = expand · dim."""
    head_dim: int = 64
    """Features a head (P)."""
    state_size: int = 128
    """Columns of a head's state (N)."""
    conv_width: int = 4
    """Taps of the causal convolution."""
    mask_expand: int = 4
    """Hidden width of a mask estimator over ``dim``."""
    chunk: int = 352800
    """What the network was trained on and is run on at once, samples."""

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            allowed = f"a whole number from 1 to {largest}"
            _require(type(value) is int and 1 <= value <= largest, name, allowed, value)
        _require(1 <= len(self.stems) <= 16, "stems", "1 to 16 names", self.stems)
        _require(self.conv_width == 4, "conv_width", "4, which every kernel has", self.conv_width)
        _require(self.n_fft % 2 == 0, "n_fft", "an even number", self.n_fft)
        # A longer hop leaves samples that only the foot of a window reaches: their inverse
        # transform is a division by almost nothing.
        _require(self.hop <= self.n_fft // 4, "hop", f"at most {self.n_fft // 4}", self.hop)
        _require(self.chunk >= self.n_fft, "chunk", f"at least n_fft = {self.n_fft}", self.chunk)
        _require(
            len(self.bands) >= 1 and min(self.bands) >= 1 and sum(self.bands) == self.bins,
            "bands",
            f"widths that add up to n_fft / 2 + 1 = {self.bins}",
            f"{len(self.bands)} bands of {sum(self.bands)} bins",
        )
        _require(
            self.d_inner % self.head_dim == 0,
            "head_dim",
            f"a divisor of expand · dim = {self.d_inner}",
            self.head_dim,
        )

    @property
    def bins(self) -> int:
        """Frequencies of a frame (F)."""
        return self.n_fft // 2 + 1

    @property
    def d_inner(self) -> int:
        """Width inside a mixer."""
        return self.expand * self.dim

    @property
    def heads(self) -> int:
        """Heads of a mixer (H)."""
        return self.d_inner // self.head_dim

    @property
    def conv_channels(self) -> int:
        """What the causal convolution runs over: x, B and C."""
        return self.d_inner + 2 * self.state_size

    @classmethod
    def preset(cls, name: str) -> Config:
        """A named size: ``paper``, ``medium``, ``small`` or ``tiny``.

        Raises:
            ModelError: no preset has that name.
        """
        if name not in PRESETS:
            raise ModelError(f"preset must be one of {', '.join(PRESETS)}; got {name!r}")
        return PRESETS[name]

    @classmethod
    def from_msst(cls, document: Mapping[str, Any]) -> Config:
        """The sizes in a configuration of Music-Source-Separation-Training (its parsed yaml).

        Raises:
            ModelError: the yaml describes another network, or variants that no checkpoint has.
        """
        try:
            return cls._from_msst(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"config is no usable MSST yaml: {printable(repr(error))}") from None

    @classmethod
    def _from_msst(cls, document: Mapping[str, Any]) -> Config:
        model = document.get("model")
        if not isinstance(model, Mapping) or "module_type" not in model:
            raise ModelError("config must be MSST's yaml of a bs_mamba2 model; it has no model.*")
        fixed = {"module_type": "mamba2", "mamba_gmlp": False, "stft_normalized": False}
        for key, wanted in fixed.items():
            if model.get(key, wanted) != wanted:
                raise ModelError(f"config's model.{key} must be {wanted!r}; it is {model[key]!r}")
        if model.get("stft_win_length", model["stft_n_fft"]) != model["stft_n_fft"]:
            raise ModelError("config's model.stft_win_length must equal model.stft_n_fft")
        if model.get("mask_estimator_depth", 2) != 2:
            raise ModelError("config's model.mask_estimator_depth must be 2")
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

    def to_json(self) -> str:
        """The sizes as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Reads what :meth:`to_json` wrote.

        Raises:
            ModelError: not such JSON, or a size that does not fit.
        """
        try:
            fields = json.loads(text)
            fields["stems"], fields["bands"] = tuple(fields["stems"]), tuple(fields["bands"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = printable(str(error))
            raise ModelError(f"the sizes stored with the weights are damaged: {reason}") from None


def _require(holds: bool, name: str, allowed: str, came: object) -> None:
    if not holds:
        raise ModelError(f"{name} must be {allowed}; got {came!r}")


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
"""``paper`` is the published network; ``medium`` trades quality for speed; ``small``, of a longer
transform and hop, is what ships with weights, which two cores can train in hours; ``tiny`` is
for tests and first steps. All have the head dimension (64) that the fast kernels are made for."""
