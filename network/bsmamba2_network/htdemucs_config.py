"""The sizes of an HT Demucs, validated on construction."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bsmamba2.errors import ModelError, not_one_of, printable, require
from bsmamba2_network.sizes import Shapes, numbered, require_agreement

STRIDE = 4
"""Rows, or samples, that an encoder joins to one."""

FOUR_STEMS = ("drums", "bass", "other", "vocals")

# Far above any real network: these limits reject absurd sizes from untrusted files.
_LARGEST = {
    "sample_rate": 384000,
    "channels": 2,
    "n_fft": 1 << 16,
    "width": 1 << 10,
    "depth": 6,
    "layers": 64,
    "heads": 64,
    "chunk": 1 << 24,
}

# The options of the published networks, and what their absence in a file means.
_FIXED = {
    "growth": (2, 2),
    "channels_time": (None, None),
    "cac": (True, True),
    "rewrite": (True, True),
    "freq_emb": (0.2, 0.2),
    "emb_scale": (10, 10),
    "kernel_size": (8, 8),
    "stride": (STRIDE, STRIDE),
    "context": (1, 1),
    "context_enc": (0, 0),
    "dconv_mode": (3, 1),
    "dconv_depth": (2, 2),
    "dconv_comp": (8, 8),
    "t_emb": ("sin", "sin"),
    "t_hidden_scale": (4.0, 4.0),
    "t_max_period": (10000.0, 10000.0),
    "t_norm_in": (True, True),
    "t_norm_in_group": (False, False),
    "t_group_norm": (False, False),
    "t_norm_first": (True, True),
    "t_norm_out": (True, True),
    "t_layer_scale": (True, True),
    "t_gelu": (True, True),
    "t_weight_pos_embed": (1.0, 1.0),
    "t_sparse_self_attn": (False, False),
    "t_sparse_cross_attn": (False, False),
    "t_cross_first": (False, False),
}


@dataclass(frozen=True)
class HTDemucsConfig:
    """Every size of the network, with its unit and its name in published configurations, if any.

    The defaults are those of ``htdemucs``.

    Raises:
        ModelError: a size is not allowed; the message names the size and what is allowed.
    """

    stems: tuple[str, ...] = FOUR_STEMS
    """Names of the stems, in the order of the output (``sources``)."""
    sample_rate: int = 44100
    """Sample rate, Hz."""
    channels: int = 2
    """Audio channels, 1 or 2."""
    n_fft: int = 4096
    """Length of the window and the transform, samples (``nfft``)."""
    width: int = 48
    """Channels after the first encoder (``channels``); each encoder doubles them."""
    depth: int = 4
    """Number of encoders in each branch."""
    bottom: int = 512
    """Width of the transformer (``bottom_channels``); 0: the width of the last encoder."""
    layers: int = 5
    """Layers of the transformer in each branch (``t_layers``)."""
    heads: int = 8
    """Attention heads (``t_heads``)."""
    normalize: bool = False
    """Whether the caller must shift and scale the input to mean 0 and deviation 1, and the output
    back. The network itself normalises a spectrum and a waveform in any case."""
    chunk: int = 343980
    """Length of audio that the network is trained on and run on, samples (``segment``)."""

    family = "htdemucs"
    transform = "htdemucs"
    fixed_length = True
    zero_dc = False

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            allowed = f"a whole number from 1 to {largest}"
            require(type(value) is int and 1 <= value <= largest, name, allowed, value)
        require(type(self.normalize) is bool, "normalize", "true or false", self.normalize)
        require(1 <= len(self.stems) <= 16, "stems", "1 to 16 names", self.stems)
        # The last encoder needs rows for its kernel of eight.
        rows = STRIDE ** (self.depth + 1)
        require(self.n_fft % (2 * rows) == 0, "n_fft", f"a multiple of {2 * rows}", self.n_fft)
        require(self.width % 8 == 0, "width", "a multiple of 8", self.width)
        require(self.chunk >= self.n_fft, "chunk", f"at least n_fft = {self.n_fft}", self.chunk)
        bottom = type(self.bottom) is int and 0 <= self.bottom <= 1 << 13
        require(bottom, "bottom", f"a whole number from 0 to {1 << 13}", self.bottom)
        # A quarter of the features is one part of an embedding.
        whole = math.lcm(4, self.heads)
        allowed = f"such that the transformer's width is a multiple of {whole}"
        require(self.transformer_width % whole == 0, "bottom", allowed, self.transformer_width)

    @property
    def hop(self) -> int:
        """Distance between frames, samples."""
        return self.n_fft // 4

    @property
    def bins(self) -> int:
        """Frequency bins per frame: the highest is dropped."""
        return self.n_fft // 2

    @property
    def stem_count(self) -> int:
        """Number of stems."""
        return len(self.stems)

    @property
    def frames(self) -> int:
        """Frames of a chunk."""
        return -(-self.chunk // self.hop)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after each encoder."""
        return tuple(self.width << i for i in range(self.depth))

    @property
    def transformer_width(self) -> int:
        """Features of a token."""
        return self.bottom or self.widths[-1]

    @classmethod
    def preset(cls, name: str) -> HTDemucsConfig:
        """Returns a published size: ``htdemucs``, ``htdemucs_6s`` or ``htdemucs_vocals``.

        Raises:
            ModelError: no preset has that name.
        """
        if name not in HTDEMUCS:
            raise ModelError(not_one_of("size", HTDEMUCS, name))
        return HTDEMUCS[name]

    @classmethod
    def from_msst(cls, document: Mapping[str, Any]) -> HTDemucsConfig:
        """Reads the sizes from a parsed yaml of Music-Source-Separation-Training (MSST).

        Raises:
            ModelError: the yaml describes another network, or a variant that is not supported.
        """
        try:
            if document.get("model") != "htdemucs":
                raise ModelError(
                    "config must be MSST's yaml of an htdemucs model; got one whose model is not "
                    "htdemucs"
                )
            training = document["training"]
            return cls._from_options(
                {
                    **document["htdemucs"],
                    "sources": training["instruments"],
                    "audio_channels": training.get("channels", 2),
                    "samplerate": training.get("samplerate", 44100),
                    "segment": training["segment"],
                }
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = printable(repr(error))
            raise ModelError(f"config must be a complete MSST yaml; got {reason}") from None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> HTDemucsConfig:
        """Reads the options that a published network was built with (``kwargs``).

        Args:
            options: plain values; ``segment`` in seconds.

        Raises:
            ModelError: the options describe a variant that is not supported.
        """
        try:
            return cls._from_options(options)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            reason = printable(repr(error))
            raise ModelError(f"HT Demucs' options must be complete; got {reason}") from None

    @classmethod
    def _from_options(cls, options: Mapping[str, Any]) -> HTDemucsConfig:
        depth = options.get("depth", 4)
        fixed = {name: value for name, (value, _) in _FIXED.items()}
        got = {name: options.get(name, absent) for name, (_, absent) in _FIXED.items()}
        # Only their truth or a bound matters.
        fixed |= {"multi_freqs": False, "norm_starts": True}
        got |= {
            "multi_freqs": bool(options.get("multi_freqs")),
            "norm_starts": options.get("norm_starts", 4) >= depth,
        }
        for name, required in fixed.items():
            if got[name] != required:
                value = printable(repr(options.get(name, got[name])))
                raise ModelError(f"HT Demucs' option {name} must be {required!r}; got {value}")
        sample_rate = options.get("samplerate", 44100)
        return cls(
            stems=tuple(options["sources"]),
            sample_rate=sample_rate,
            channels=options.get("audio_channels", 2),
            n_fft=options.get("nfft", 4096),
            width=options.get("channels", 48),
            depth=depth,
            bottom=options.get("bottom_channels", 0),
            layers=options.get("t_layers", 5),
            heads=options.get("t_heads", 8),
            chunk=int(options.get("segment", 10) * sample_rate),
        )

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> HTDemucsConfig:
        """Derives the sizes from the shapes of the weights.

        Heads, sample rate, chunk and the names of the stems do not affect any shape. They are those
        of the published network of the same size, or else the defaults.

        Raises:
            ModelError: these are not the shapes of an HT Demucs.
        """
        found = sizes_in(shapes)
        for config in HTDEMUCS.values():
            if all(getattr(config, name) == size for name, size in found.items()):
                return config
        count = found.pop("stem_count")
        stems = cls().stems if count == 4 else tuple(f"stem{s}" for s in range(count))
        return cls(stems=stems, **found)

    def require_agreement(self, shapes: Shapes) -> None:
        """Raises a ModelError that names a size, here and in the weights, if they contradict."""
        require_agreement(self, sizes_in(shapes))

    def to_json(self) -> str:
        """Returns the sizes as JSON text."""
        return json.dumps(dataclasses.asdict(self) | {"family": self.family})

    @classmethod
    def from_json(cls, text: str) -> HTDemucsConfig:
        """Reads what :meth:`to_json` wrote.

        Raises:
            ModelError: the text is not this JSON, or a size is not allowed.
        """
        try:
            fields = json.loads(text)
            require(fields.pop("family") == cls.family, "family", cls.family, "another")
            fields["stems"] = tuple(fields["stems"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = printable(str(error))
            raise ModelError(f"the sizes stored with the weights are damaged: {reason}") from None


def sizes_in(shapes: Shapes) -> dict[str, Any]:
    """Returns the attributes of :class:`HTDemucsConfig` that shapes of weights determine, by name.

    Raises:
        ModelError: these are not the weights of an HT Demucs.
    """
    try:
        depth = len(numbered(shapes, r"encoder\.(\d+)\."))
        width, into = shapes["encoder.0.conv.weight"][:2]
        out = shapes[f"decoder.{depth - 1}.conv_tr.weight"][1]
        return {
            "stem_count": out // into,
            "channels": into // 2,
            "n_fft": 2 * STRIDE * shapes["freq_emb.embedding.weight"][0],
            "width": width,
            "depth": depth,
            "bottom": shapes.get("channel_upsampler.weight", (0,))[0],
            "layers": len(numbered(shapes, r"crosstransformer\.layers\.(\d+)\.")),
        }
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        first = printable(", ".join(list(shapes)[:3]))
        raise ModelError(
            f"checkpoint must hold the weights of an HT Demucs; got the keys {first}, …"
        ) from None


HTDEMUCS = {
    "htdemucs": HTDemucsConfig(),
    "htdemucs_6s": HTDemucsConfig(stems=(*FOUR_STEMS, "guitar", "piano"), bottom=0),
    "htdemucs_vocals": HTDemucsConfig(stems=("vocals", "other"), chunk=11 * 44100),
}
"""The published sizes.

``htdemucs`` is also the size of the four members of ``htdemucs_ft``, each of which is trained for
one stem. ``htdemucs_vocals`` was trained with MSST.
"""
