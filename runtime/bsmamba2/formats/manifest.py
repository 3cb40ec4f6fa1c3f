"""The manifest: everything that a runtime must know of a model, and nothing else.

Export writes it, the runtime reads it: it is the one contract between the two. It stands as JSON
in the ONNX metadata under ``bsmamba2.manifest`` and as a file beside every engine. A model is
untrusted input, so each field is checked here, once, before anything is allocated from it.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.errors import ModelError, printable

FORMAT = 1
METADATA_KEY = "bsmamba2.manifest"
MAX_JSON_BYTES = 8 << 20

TARGETS = ("portable", "ort", "tensorrt", "tensorrt-plugin")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
WEIGHT_PRECISIONS = ("fp32", "fp16", "bf16")
IO_KINDS = ("spectrum", "waveform")


@dataclass(frozen=True)
class State:
    """A tensor that a streaming graph carries from one step to the next.

    The input is called ``name``, the output ``next_<name>``; both are float32.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Check:
    """What the model made of a known second of noise, so that any device can be tested once. A
    streaming model takes it in the steps of :data:`bsmamba2.models.check.CHECK_STEPS`.

    ``expected`` is every ``stride``-th sample of the stems (row-major over stems, channels,
    samples); a device must reproduce it with an SNR of at least ``snr_db``.
    """

    seed: int
    samples: int
    stride: int
    snr_db: float
    expected: Audio

    def to_json(self) -> dict[str, Any]:
        packed = base64.b64encode(self.expected.astype("<f4").tobytes()).decode("ascii")
        return {
            "seed": self.seed,
            "samples": self.samples,
            "stride": self.stride,
            "snr_db": self.snr_db,
            "expected": packed,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Check:
        expected = np.frombuffer(base64.b64decode(fields["expected"], validate=True), dtype="<f4")
        return cls(
            seed=_integer(fields, "seed", 0, 2**32 - 1),
            samples=_integer(fields, "samples", 1, 1 << 22),
            stride=_integer(fields, "stride", 1, 1 << 16),
            snr_db=_finite(fields["snr_db"], "check.snr_db"),
            expected=expected.astype(np.float32),
        )


@dataclass(frozen=True)
class Manifest:
    """One model, described. Lengths are in samples at ``sample_rate``.

    Raises:
        ModelError: a field is out of range; the message names it.
    """

    name: str
    """What the model is called, e.g. ``bs_mamba2_vocals``: the file stem of its checkpoint."""
    stems: tuple[str, ...] = ("vocals",)
    """The sources that the engine returns, in its order."""
    residual: str | None = "instrumental"
    """What the mixture less the stems is called; None where the stems are everything."""
    sample_rate: int = 44100
    """Hz."""
    channels: int = 2
    n_fft: int = 2048
    """Length of the periodic Hann window and of the transform, samples."""
    hop: int = 441
    """From one frame of the spectrum to the next, samples."""
    chunk: int = 352800
    """One run of the engine, samples."""
    overlap: float = 0.125
    """Default overlap of neighbouring chunks, a fraction of the chunk in [0, 1)."""
    io: str = "spectrum"
    """``spectrum``: (batch, channels, frames, bins, 2) to (batch, stems, channels, frames, bins,
    2). ``waveform``: (batch, channels, samples) to (batch, stems, channels, samples)."""
    target: str = "portable"
    """Which body the scan has in the graph."""
    precision: str = "fp32"
    """What the engine computes in."""
    weights: str = "fp32"
    """What the weights are stored in."""
    states: tuple[State, ...] = ()
    """What a streaming graph carries; empty for a graph that takes whole chunks."""
    parameters: int = 0
    checkpoint_sha256: str | None = None
    """Of the checkpoint file that the weights came from; None where there was no file."""
    licence: str = "not stated"
    """Of the weights."""
    initialisers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Every weight by its name in the checkpoint, with its shape."""
    verification: Mapping[str, float] = field(default_factory=dict)
    """What export measured: names of comparisons to SNR in dB."""
    check: Check | None = None
    """None in a graph without weights."""

    def __post_init__(self) -> None:
        shown = self.name.isprintable() and 1 <= len(self.name) <= 200
        _require(shown, "name", "1 to 200 printable letters", self.name)
        _require(self.licence.isprintable(), "licence", "one printable line", self.licence)
        sha = self.checkpoint_sha256
        hexadecimal = sha is None or (isinstance(sha, str) and len(sha) == 64 and sha.isalnum())
        _require(hexadecimal, "checkpoint_sha256", "64 hexadecimal digits or null", sha)
        _require(0 < len(self.stems) <= 16, "stems", "1 to 16 names", self.stems)
        names = (*self.stems, self.residual) if self.residual else self.stems
        for stem in names:
            _require(_is_plain_name(stem), "stems", "names of letters, digits, - and _", stem)
        _require(len(set(names)) == len(names), "stems", "different names", names)
        _require(8000 <= self.sample_rate <= 384000, "sample_rate", "8000-384000", self.sample_rate)
        _require(self.channels in (1, 2), "channels", "1 or 2", self.channels)
        _require(16 <= self.n_fft <= 1 << 16, "n_fft", "16-65536", self.n_fft)
        _require(self.n_fft % 2 == 0, "n_fft", "an even number", self.n_fft)
        _require(1 <= self.hop <= self.n_fft // 4, "hop", f"1-{self.n_fft // 4}", self.hop)
        _require(self.n_fft <= self.chunk <= 1 << 24, "chunk", "n_fft to 2^24 samples", self.chunk)
        _require(0 <= self.overlap <= 0.99, "overlap", "a fraction in 0-0.99", self.overlap)
        _require(self.io in IO_KINDS, "io", " or ".join(IO_KINDS), self.io)
        _require(self.target in TARGETS, "target", ", ".join(TARGETS), self.target)
        _require(self.precision in PRECISIONS, "precision", ", ".join(PRECISIONS), self.precision)
        _require(
            self.weights in WEIGHT_PRECISIONS, "weights", ", ".join(WEIGHT_PRECISIONS), self.weights
        )
        object.__setattr__(self, "initialisers", MappingProxyType(dict(self.initialisers)))
        object.__setattr__(self, "verification", MappingProxyType(dict(self.verification)))

    @property
    def bins(self) -> int:
        """Frequencies of a frame: n_fft / 2 + 1."""
        return self.n_fft // 2 + 1

    @property
    def streaming(self) -> bool:
        """Whether the graph carries states from one step to the next."""
        return bool(self.states)

    @property
    def outputs(self) -> tuple[str, ...]:
        """All that a user gets: the stems, then the residual."""
        return (*self.stems, self.residual) if self.residual else self.stems

    def replace(self, **changes: Any) -> Manifest:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """The manifest as JSON text; :meth:`from_json` reads it back unchanged."""
        fields: dict[str, Any] = {"format": FORMAT}
        for item in dataclasses.fields(self):
            fields[item.name] = getattr(self, item.name)
        fields["states"] = [{"name": s.name, "shape": s.shape} for s in self.states]
        fields["initialisers"] = dict(self.initialisers)
        fields["verification"] = dict(self.verification)
        fields["check"] = self.check.to_json() if self.check else None
        return json.dumps(fields, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Reads a manifest.

        Raises:
            ModelError: not a manifest, made by a later version, or a field is out of range.
        """
        if len(text) > MAX_JSON_BYTES:
            raise ModelError(f"the manifest is larger than {MAX_JSON_BYTES >> 20} MiB: not ours")
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            raise ModelError("the manifest is not JSON: the model is damaged or not ours") from None
        if not isinstance(fields, dict) or type(fields.get("format")) is not int:
            raise ModelError("the manifest has no format number: the model is damaged or not ours")
        if not 1 <= fields["format"] <= FORMAT:
            raise ModelError(
                f"the model's manifest has format {fields['format']}, this bsmamba2 reads up to "
                f"{FORMAT}: upgrade with pip install -U bsmamba2"
            )
        try:
            return cls._from_fields(fields)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelError(
                f"the model's manifest is damaged{missing_field(error)}: get the model again, or "
                "export it again"
            ) from None

    @classmethod
    def _from_fields(cls, fields: Mapping[str, Any]) -> Manifest:
        return cls(
            name=str(fields["name"]),
            stems=tuple(str(stem) for stem in _list(fields, "stems")),
            residual=None if fields["residual"] is None else str(fields["residual"]),
            sample_rate=_integer(fields, "sample_rate", 1, 1 << 20),
            channels=_integer(fields, "channels", 1, 64),
            n_fft=_integer(fields, "n_fft", 1, 1 << 20),
            hop=_integer(fields, "hop", 1, 1 << 20),
            chunk=_integer(fields, "chunk", 1, 1 << 30),
            overlap=_finite(fields["overlap"], "overlap"),
            io=str(fields["io"]),
            target=str(fields["target"]),
            precision=str(fields["precision"]),
            weights=str(fields["weights"]),
            states=tuple(
                State(str(s["name"]), _shape(s["shape"])) for s in _list(fields, "states")
            ),
            parameters=_integer(fields, "parameters", 0, 1 << 40),
            checkpoint_sha256=fields["checkpoint_sha256"],
            licence=str(fields["licence"]),
            initialisers={str(k): _shape(v) for k, v in fields["initialisers"].items()},
            verification={
                str(k): _finite(v, "verification") for k, v in fields["verification"].items()
            },
            check=None if fields["check"] is None else Check.from_json(fields["check"]),
        )


def default_overlap(chunk: int, sample_rate: int) -> float:
    """A crossfade of a second, half a chunk at most, as a fraction of the chunk."""
    return min(0.5, sample_rate / chunk)


def residual_of(stems: tuple[str, ...]) -> str:
    """What a mixture less these stems is called: the instrumental, if they are the vocals."""
    return "instrumental" if stems == ("vocals",) else "residual"


def missing_field(error: Exception) -> str:
    """For a sentence about a damaged JSON: which field it lacks, if that is what was raised."""
    return f", it has no {printable(repr(error.args[0]))}" if isinstance(error, KeyError) else ""


def _require(holds: bool, name: str, allowed: str, came: object) -> None:
    if not holds:
        shown = printable(repr(came))
        raise ModelError(f"the manifest's {name} must be {allowed}; it is {shown}")


def _is_plain_name(name: str) -> bool:
    """Stems become file names, so they must not be able to leave a folder."""
    return 0 < len(name) <= 64 and name.replace("-", "").replace("_", "").isalnum()


def _integer(fields: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = fields[name]
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    _require(is_integer and low <= value <= high, name, f"an integer in {low}-{high}", value)
    return int(value)


def _list(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields[name]
    _require(isinstance(value, list), name, "a list", value)
    return list(value)


def _finite(value: Any, name: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    _require(is_number and math.isfinite(value), name, "a finite number", value)
    return float(value)


def _shape(sizes: Any) -> tuple[int, ...]:
    _require(
        isinstance(sizes, (list, tuple)) and all(type(size) is int for size in sizes),
        "shapes",
        "lists of whole numbers",
        sizes,
    )
    shape = tuple(sizes)
    _require(
        len(shape) <= 8 and all(size >= 0 for size in shape) and math.prod(shape) <= 1 << 34,
        "initialisers",
        "shapes of up to 8 sizes and 2^34 elements",
        shape,
    )
    return shape
