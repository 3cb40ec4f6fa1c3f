"""The sizes of an SCNet, validated on construction."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bsmamba2.errors import ModelError, not_one_of, printable, require
from bsmamba2_network.sizes import Shapes, numbered, require_agreement

log = logging.getLogger("bsmamba2")

# Far above any real network: these limits reject absurd sizes from untrusted files.
_LARGEST = {
    "sample_rate": 384000,
    "channels": 2,
    "n_fft": 1 << 16,
    "hop": 1 << 14,
    "dual_paths": 64,
    "chunk": 1 << 24,
}
_BANDS = 3
_COMPRESSION = 4


@dataclass(frozen=True)
class SCNetConfig:
    """Every size of the network, with its unit and its name in published configurations, if any.

    The defaults are those of ``scnet_small``.

    Raises:
        ModelError: a size is not allowed; the message names the size and what is allowed.
    """

    stems: tuple[str, ...] = ("drums", "bass", "other", "vocals")
    """Names of the stems, in the order of the output."""
    sample_rate: int = 44100
    """Sample rate, Hz."""
    channels: int = 2
    """Audio channels, 1 or 2."""
    n_fft: int = 4096
    """Length of the transform, samples; a frame has n_fft / 2 + 1 bins."""
    hop: int = 1024
    """Distance between frames, samples."""
    widths: tuple[int, ...] = (32, 64, 128)
    """Channels after each encoder stage (``dims`` without the first)."""
    band_fractions: tuple[float, ...] = (0.175, 0.392, 0.433)
    """Fractions of the rows that form the low, middle and high band (``band_SR``)."""
    strides: tuple[int, ...] = (1, 4, 16)
    """Rows of a band that a stage joins to one (``band_stride``)."""
    conv_depths: tuple[int, ...] = (3, 2, 1)
    """Convolution blocks of each band in every stage (``conv_depths``)."""
    dual_paths: int = 6
    """Number of dual-path layers (``num_dplayer``), even."""
    normalize: bool = False
    """Whether the caller must shift and scale the input to mean 0 and deviation 1, and the output
    back (``inference.normalize``). The network itself does not."""
    chunk: int = 485100
    """Length of audio that the network is trained on and run on, samples."""

    family = "scnet"
    transform = "scnet"
    fixed_length = True
    zero_dc = False

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            allowed = f"a whole number from 1 to {largest}"
            require(type(value) is int and 1 <= value <= largest, name, allowed, value)
        require(type(self.normalize) is bool, "normalize", "true or false", self.normalize)
        require(1 <= len(self.stems) <= 16, "stems", "1 to 16 names", self.stems)
        require(self.n_fft % 4 == 0, "n_fft", "a multiple of 4", self.n_fft)
        require(self.hop <= self.n_fft // 4, "hop", f"at most {self.n_fft // 4}", self.hop)
        require(self.chunk >= self.n_fft, "chunk", f"at least n_fft = {self.n_fft}", self.chunk)
        require(self.dual_paths % 2 == 0, "dual_paths", "even", self.dual_paths)
        _require_whole("widths", self.widths, None, 1 << 12, step=_COMPRESSION)
        require(len(self.widths) <= 8, "widths", "at most 8 stages", len(self.widths))
        _require_whole("strides", self.strides, _BANDS, 64)
        require(
            all(stride != 3 for stride in self.strides),
            "strides",
            "1, 2, 4 or more: a kernel of 3 rows has stride 1",
            self.strides,
        )
        _require_whole("conv_depths", self.conv_depths, _BANDS, 16)
        fractions = self.band_fractions
        require(
            len(fractions) == _BANDS
            and all(type(part) is float and 0 < part < 1 for part in fractions)
            and math.isclose(sum(fractions), 1),
            "band_fractions",
            f"{_BANDS} fractions that add up to 1",
            fractions,
        )
        smallest = min(min(rows) for rows in self.band_rows)
        require(smallest >= 1, "band_fractions", "bands of at least one row", fractions)

    @property
    def bins(self) -> int:
        """Frequency bins per frame: the rows before the first stage."""
        return self.n_fft // 2 + 1

    @property
    def frames(self) -> int:
        """Frames of a chunk: an even number, for the network's own transform along them."""
        frames = self.chunk // self.hop + 2
        return frames + frames % 2

    @property
    def stem_count(self) -> int:
        """Number of stems."""
        return len(self.stems)

    @property
    def kernels(self) -> tuple[int, ...]:
        """Rows that each band's convolution covers (``band_kernel``)."""
        return tuple(3 if stride == 1 else stride for stride in self.strides)

    @property
    def band_rows(self) -> tuple[tuple[int, ...], ...]:
        """Rows of each band before each stage."""
        stages, rows = [], self.bins
        low, middle, _ = self.band_fractions
        for _ in self.widths:
            first, second = math.ceil(rows * low), math.ceil(rows * (low + middle))
            stages.append((first, second - first, rows - second))
            rows = sum(-(-n // step) for n, step in zip(stages[-1], self.strides, strict=True))
        return tuple(stages)

    @classmethod
    def preset(cls, name: str) -> SCNetConfig:
        """Returns a published size: ``scnet_small``, ``scnet_large``, ``scnet_xl``, ….

        Raises:
            ModelError: no preset has that name.
        """
        if name not in SCNETS:
            raise ModelError(not_one_of("size", SCNETS, name))
        return SCNETS[name]

    @classmethod
    def from_msst(cls, document: Mapping[str, Any]) -> SCNetConfig:
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
    def _from_msst(cls, document: Mapping[str, Any]) -> SCNetConfig:
        model = document.get("model")
        if not isinstance(model, Mapping) or "band_SR" not in model:
            raise ModelError(
                "config must be MSST's yaml of an scnet model; got one without model.band_SR"
            )
        small = cls()
        audio, training = document.get("audio") or {}, document.get("training") or {}
        config = cls(
            stems=tuple(model.get("sources") or training.get("instruments") or small.stems),
            sample_rate=audio.get("sample_rate", small.sample_rate),
            channels=model.get("audio_channels", small.channels),
            n_fft=model.get("nfft", small.n_fft),
            hop=model.get("hop_size", small.hop),
            widths=tuple(model.get("dims", (4, *small.widths)))[1:],
            band_fractions=tuple(model["band_SR"]),
            strides=tuple(model.get("band_stride", small.strides)),
            conv_depths=tuple(model.get("conv_depths", small.conv_depths)),
            dual_paths=model.get("num_dplayer", small.dual_paths),
            normalize=bool((document.get("inference") or {}).get("normalize", False)),
            chunk=audio.get("chunk_size", small.chunk),
        )
        fixed = {
            "dims": [2 * config.channels, *config.widths],
            "win_size": config.n_fft,
            "normalized": True,
            "band_kernel": list(config.kernels),
            "compress": _COMPRESSION,
            "conv_kernel": 3,
            "expand": 1,
        }
        for key, required in fixed.items():
            value = model.get(key, required)
            if (list(value) if isinstance(value, tuple) else value) != required:
                got = printable(repr(model[key]))
                raise ModelError(f"config's model.{key} must be {required!r}; got {got}")
        return config

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> SCNetConfig:
        """Derives the sizes from the shapes of the weights.

        The weights do not show how the rows are divided into bands, nor whether the input is
        normalised. Both are those of the published size with the same weights. For any other size
        the fractions are those of the most similar published one, and a warning says so.

        Raises:
            ModelError: these are not the shapes of an SCNet.
        """
        found = sizes_in(shapes)
        common = {
            name: sum(getattr(config, size) == value for size, value in found.items())
            for name, config in SCNETS.items()
        }
        nearest = max(SCNETS, key=lambda name: common[name])
        published = SCNETS[nearest]
        if common[nearest] == len(found):
            return published
        log.warning(
            "no published SCNet has these sizes, and the weights do not tell band_SR: using that "
            "of %s, %s; if this is wrong, give the yaml",
            nearest,
            ", ".join(map(str, published.band_fractions)),
        )
        count = found.pop("stem_count")
        stems = cls().stems if count == 4 else tuple(f"stem{s}" for s in range(count))
        return cls(stems=stems, band_fractions=published.band_fractions, **found)

    def require_agreement(self, shapes: Shapes) -> None:
        """Raises a ModelError that names a size, here and in the weights, if they contradict."""
        require_agreement(self, sizes_in(shapes))

    def to_json(self) -> str:
        """Returns the sizes as JSON text."""
        return json.dumps(dataclasses.asdict(self) | {"family": self.family})

    @classmethod
    def from_json(cls, text: str) -> SCNetConfig:
        """Reads what :meth:`to_json` wrote.

        Raises:
            ModelError: the text is not this JSON, or a size is not allowed.
        """
        try:
            fields = json.loads(text)
            require(fields.pop("family") == cls.family, "family", cls.family, "another")
            for name, value in fields.items():
                fields[name] = tuple(value) if isinstance(value, list) else value
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = printable(str(error))
            raise ModelError(f"the sizes stored with the weights are damaged: {reason}") from None


def _require_whole(
    name: str, values: tuple[int, ...], count: int | None, largest: int, step: int = 1
) -> None:
    """Requires a number of whole numbers from ``step`` to ``largest``, multiples of ``step``."""
    require(
        len(values) >= 1
        and len(values) == (count or len(values))
        and all(type(n) is int and step <= n <= largest and n % step == 0 for n in values),
        name,
        f"{count or 'some'} whole numbers from {step} to {largest}"
        + (f", multiples of {step}" if step > 1 else ""),
        values,
    )


def sizes_in(shapes: Shapes) -> dict[str, Any]:
    """Returns the attributes of :class:`SCNetConfig` that shapes of weights determine, by name.

    Raises:
        ModelError: these are not the weights of an SCNet.
    """
    try:
        stages = len(numbered(shapes, r"encoder\.(\d+)\."))
        convs = [shapes[f"encoder.0.SDlayer.convs.{b}.weight"] for b in range(_BANDS)]
        out = shapes[f"decoder.{stages - 1}.1.convtrs.0.weight"][1]
        blocks = r"encoder\.0\.conv_modules\.{}\.layers\.(\d+)\."
        return {
            "strides": tuple(1 if conv[2] == 3 else conv[2] for conv in convs),
            "conv_depths": tuple(len(numbered(shapes, blocks.format(b))) for b in range(_BANDS)),
            "widths": tuple(shapes[f"encoder.{e}.globalconv.weight"][0] for e in range(stages)),
            "dual_paths": len(numbered(shapes, r"separation_net\.dp_modules\.(\d+)\.")),
            "channels": convs[0][1] // 2,
            "stem_count": out // convs[0][1],
        }
    except (KeyError, IndexError, ZeroDivisionError):
        first = printable(", ".join(list(shapes)[:3]))
        raise ModelError(
            f"checkpoint must hold the weights of an SCNet; got the keys {first}, …"
        ) from None


_LARGE = SCNetConfig(widths=(64, 128, 256), band_fractions=(0.225, 0.372, 0.403))
_XL = dataclasses.replace(_LARGE, band_fractions=(0.230, 0.370, 0.400), dual_paths=8)

SCNETS = {
    "scnet_small": SCNetConfig(normalize=True),
    "scnet_large": _LARGE,
    "scnet_xl": _XL,
    "scnet_xl_ihf": dataclasses.replace(_XL, strides=(1, 4, 4), conv_depths=(3, 3, 3)),
}
"""The published sizes. Of ``scnet_large`` there are also weights that expect normalised input."""
