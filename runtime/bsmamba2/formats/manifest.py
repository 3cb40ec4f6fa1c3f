"""The manifest: everything that the runtime must know about a model, and nothing else.

The export writes it and the runtime reads it; it is the only contract between the two. It is stored
as JSON in the ONNX metadata under ``bsmamba2.manifest``, and in a file next to every engine. A
model is untrusted input, so this module checks every field before memory is allocated from it.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.errors import ModelError, printable, require
from bsmamba2.installation import upgrade_command

FORMAT = 2
"""The newest format. A manifest states 1 unless it uses a field that format 2 added."""
METADATA_KEY = "bsmamba2.manifest"
MAX_JSON_BYTES = 8 << 20
MAX_CHUNK = 1 << 24

MAX_SPECTRUM = 1 << 23
"""The most frames times bins of one run; the published network has 0.8 million."""

MAX_STATES = 1 << 27
"""The most numbers in the states of a stream; the published network has 49 million."""

MIN_CHECK_DB = 10.0
"""A check that demands less proves nothing; exports demand at least 20 dB."""

TARGETS = ("portable", "ort", "inlined", "tensorrt", "tensorrt-plugin")
PRECISIONS = ("fp32", "fp16", "bf16")
WEIGHT_PRECISIONS = ("fp32", "fp16", "bf16")
IO_KINDS = ("spectrum", "waveform", "both")
FAMILIES = ("bs_mamba2", "bs_roformer", "mel_band_roformer", "scnet", "htdemucs")
TRANSFORMS = ("hann", "scnet", "htdemucs")

_FOREIGN = "the model is damaged or was not exported by bsmamba2"


@dataclass(frozen=True)
class State:
    """A tensor that a streaming graph passes from one step to the next.

    The input is called ``name`` and the output ``next_<name>``; both are float32.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Check:
    """The model's output for a second of seeded noise, against which each device is tested once.

    ``expected`` is every ``stride``-th sample of the stems (row-major over stems, channels,
    samples); a device must reproduce it with an SNR of at least ``snr_db``. A streaming model
    processes the noise in the steps of :data:`bsmamba2.models.check.CHECK_STEPS`.
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
        finite = bool(np.isfinite(expected).all())
        _require(finite, "check.expected", "finite numbers", "some that are not")
        snr_db = _finite(fields["snr_db"], "check.snr_db")
        _require(snr_db >= MIN_CHECK_DB, "check.snr_db", f"at least {MIN_CHECK_DB:.0f} dB", snr_db)
        return cls(
            seed=_integer(fields, "seed", 0, 2**32 - 1),
            samples=_integer(fields, "samples", 1, 1 << 22),
            stride=_integer(fields, "stride", 1, 1 << 16),
            snr_db=snr_db,
            expected=expected.astype(np.float32),
        )


@dataclass(frozen=True)
class Manifest:
    """The description of a model. Lengths are in samples at ``sample_rate``.

    Raises:
        ModelError: a field is out of range; the message names the field.
    """

    name: str
    """The checkpoint's file name without its suffix, e.g. ``bs_mamba2_vocals``."""
    stems: tuple[str, ...] = ("vocals",)
    """The stems that the engine returns, in its order."""
    residual: str | None = "instrumental"
    """The name of the mixture minus the stems; None if the stems add up to the mixture."""
    sample_rate: int = 44100
    """Hz."""
    channels: int = 2
    n_fft: int = 2048
    """Length of the periodic Hann window and of the transform, in samples."""
    hop: int = 441
    """Distance of the frames of the spectrum, in samples."""
    chunk: int = 352800
    """Length of one run of the engine, in samples."""
    overlap: float = 0.125
    """Default overlap of adjacent chunks, as a fraction of the chunk in [0, 1)."""
    io: str = "spectrum"
    """``spectrum``: (batch, channels, frames, bins, 2) to (batch, stems, channels, frames, bins,
    2). ``waveform``: (batch, channels, samples) to (batch, stems, channels, samples). ``both``: a
    spectrum and a waveform to stems of both kinds, whose sum is the stems."""
    family: str = "bs_mamba2"
    """The kind of network."""
    transform: str = "hann"
    """The Fourier transform around a graph of spectra; see :mod:`bsmamba2.audio.transforms`."""
    fixed_length: bool = False
    """Whether the graph takes only whole chunks; shorter ones are padded with zeros."""
    normalize: bool = False
    """Whether each chunk is shifted and scaled to mean 0 and deviation 1 before the network, and
    back after it. Both are measured on the mean of the channels."""
    zero_dc: bool = False
    """Whether the lowest bin of the stems is set to 0."""
    target: str = "portable"
    """The body of the scan in the graph."""
    precision: str = "fp32"
    """The precision that the engine computes in."""
    weights: str = "fp32"
    """The precision that the weights are stored in."""
    states: tuple[State, ...] = ()
    """The tensors that a streaming graph passes on; empty for a graph that takes whole chunks."""
    parameters: int = 0
    """The number of weights."""
    checkpoint_sha256: str | None = None
    """SHA-256 of the checkpoint file; None if the weights do not come from a file."""
    licence: str = "not stated"
    """The licence of the weights."""
    initialisers: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    """The shape of every weight, by its name in the checkpoint."""
    verification: Mapping[str, float] = field(default_factory=dict)
    """Measurements of the export: the SNR in dB of each comparison, by name."""
    check: Check | None = field(default=None, repr=False)
    """The check of the model; None in a graph without weights."""

    def __post_init__(self) -> None:
        named = self.name.isprintable() and 1 <= len(self.name) <= 200
        _require(named, "name", "1 to 200 printable characters", self.name)
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
        _require(
            self.n_fft <= self.chunk <= MAX_CHUNK, "chunk", "n_fft to 2^24 samples", self.chunk
        )
        frames = max(self.chunk, self.sample_rate) // self.hop + 1
        fits = frames * self.bins <= MAX_SPECTRUM
        _require(fits, "hop", f"longer for a chunk of {self.chunk} samples", self.hop)
        _require(0 <= self.overlap <= 0.99, "overlap", "a fraction in 0-0.99", self.overlap)
        _require(self.io in IO_KINDS, "io", ", ".join(IO_KINDS), self.io)
        _require(self.family in FAMILIES, "family", ", ".join(FAMILIES), self.family)
        _require(self.transform in TRANSFORMS, "transform", ", ".join(TRANSFORMS), self.transform)
        _require(not self.states or self.transform == "hann", "transform", "hann", self.transform)
        _require(self.target in TARGETS, "target", ", ".join(TARGETS), self.target)
        _require(self.precision in PRECISIONS, "precision", ", ".join(PRECISIONS), self.precision)
        _require(
            self.weights in WEIGHT_PRECISIONS, "weights", ", ".join(WEIGHT_PRECISIONS), self.weights
        )
        total = sum(math.prod(state.shape) for state in self.states)
        _require(total <= MAX_STATES, "states", f"at most {MAX_STATES} numbers", total)
        names = tuple(state.name for state in self.states if state.shape)
        named = len(set(names)) == len(self.states)
        _require(named, "states", "tensors with different names and a batch", names[:3])
        if self.check is not None:
            longest = max(self.chunk, self.sample_rate)
            samples = self.check.samples
            _require(samples <= longest, "check.samples", f"at most {longest}", samples)
        object.__setattr__(self, "initialisers", MappingProxyType(dict(self.initialisers)))
        object.__setattr__(self, "verification", MappingProxyType(dict(self.verification)))

    @property
    def bins(self) -> int:
        """Number of frequencies of a frame: n_fft / 2 + 1, without the highest in HT Demucs."""
        return self.n_fft // 2 + (self.transform != "htdemucs")

    @property
    def streaming(self) -> bool:
        """Whether the graph passes states from one step to the next."""
        return bool(self.states)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of all outputs for users: the stems, then the residual."""
        return (*self.stems, self.residual) if self.residual else self.stems

    @property
    def available(self) -> tuple[str, ...]:
        """The names that users can ask for: the outputs, and ``instrumental`` if there are vocals.

        In a model of several stems, the instrumental is the mixture minus the vocals.
        """
        derived = "vocals" in self.outputs and "instrumental" not in self.outputs
        return (*self.outputs, "instrumental") if derived else self.outputs

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that determines the model's output.

        A checkpoint's check may be computed later; its own hash identifies it without the check.
        """
        known = self.checkpoint_sha256 is not None
        manifest = self.replace(check=None) if known else self
        return hashlib.sha256(manifest.to_json().encode()).hexdigest()

    def replace(self, **changes: Any) -> Manifest:
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """Returns the manifest as JSON text; :meth:`from_json` reads it back unchanged."""
        fields: dict[str, Any] = {"format": 1}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if item.name not in _FORMAT_2:
                fields[item.name] = value
            elif value != item.default:
                fields |= {"format": 2, item.name: value}
        if self.io == "both":
            fields["format"] = 2
        fields["states"] = [{"name": s.name, "shape": s.shape} for s in self.states]
        fields["initialisers"] = dict(self.initialisers)
        fields["verification"] = dict(self.verification)
        fields["check"] = self.check.to_json() if self.check else None
        return json.dumps(fields, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Reads a manifest.

        Raises:
            ModelError: the text is not a manifest or of a later format, or a field is out of range.
        """
        if len(text) > MAX_JSON_BYTES:
            raise ModelError(f"the manifest is larger than {MAX_JSON_BYTES >> 20} MiB: {_FOREIGN}")
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            raise ModelError(f"the manifest is not JSON: {_FOREIGN}") from None
        if not isinstance(fields, dict) or type(fields.get("format")) is not int:
            raise ModelError(f"the manifest has no format number: {_FOREIGN}")
        if not 1 <= fields["format"] <= FORMAT:
            raise ModelError(
                f"the model's manifest has format {fields['format']}, and this version reads up to "
                f"{FORMAT}: upgrade bsmamba2 with {upgrade_command()}"
            )
        try:
            return cls._from_fields(fields)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelError(
                f"the model's manifest is damaged{missing_field(error)}: download or export "
                "the model again"
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
            family=str(fields.get("family", "bs_mamba2")),
            transform=str(fields.get("transform", "hann")),
            fixed_length=_boolean(fields, "fixed_length"),
            normalize=_boolean(fields, "normalize"),
            zero_dc=_boolean(fields, "zero_dc"),
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


_FORMAT_2 = ("family", "transform", "fixed_length", "normalize", "zero_dc")
"""Fields that format 1 lacks. Without them, versions that only know format 1 read the file."""


def default_overlap(chunk: int, sample_rate: int) -> float:
    """Returns a crossfade of a second, at most half a chunk, as a fraction of the chunk."""
    return 0.5 if chunk <= max(0, 2 * sample_rate) else sample_rate / chunk


_COUNTERPARTS = {"vocals": "instrumental", "instrumental": "vocals", "other": "vocals"}


def residual_of(stems: tuple[str, ...]) -> str:
    """Returns the name of a mixture minus these stems: ``instrumental`` if they are the vocals."""
    return _COUNTERPARTS.get(stems[0], "residual") if len(stems) == 1 else "residual"


def missing_field(error: Exception) -> str:
    """Returns the part of a message about damaged JSON that names a missing field."""
    return f", it has no {printable(repr(error.args[0]))}" if isinstance(error, KeyError) else ""


def _require(holds: bool, name: str, allowed: str, got: object) -> None:
    require(holds, f"the manifest's {name}", allowed, got)


def _is_plain_name(name: str) -> bool:
    """Whether a stem's name is safe in a file name: it cannot leave its folder."""
    return 0 < len(name) <= 64 and name.replace("-", "").replace("_", "").isalnum()


def _integer(fields: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = fields[name]
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    _require(is_integer and low <= value <= high, name, f"an integer in {low}-{high}", value)
    return int(value)


def _boolean(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    _require(isinstance(value, bool), name, "true or false", value)
    return bool(value)


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
