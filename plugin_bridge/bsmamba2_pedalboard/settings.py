"""The settings of a separation effect: their defaults, ranges, attributes and saved form.

Python's effect, the native plugin, its saved state and the server all use this one definition.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from typing import Any, Generic, Self, TypeVar, overload

from bsmamba2 import ModelError, Separator, Stream, find_stem
from bsmamba2_pedalboard.errors import ArgumentTypeError, ArgumentValueError

MAX_GAIN_DB = 100.0
MAX_LOOKAHEAD_MS = 60_000.0
STREAM_SETTINGS = ("overlap", "lookahead_ms")
"""Settings that determine how the model runs, and so the latency; they apply to the next signal."""

Read = TypeVar("Read")
Write = TypeVar("Write")


@dataclass(frozen=True)
class EffectSettings:
    """Valid settings of a separation effect.

    Args:
        stem: name of the stem to pass.
        gain_db: gain of the stem, dB, up to 100; -inf mutes it.
        mix: 0 is the input (dry), 1 the stem (wet).
        overlap: fraction of a chunk that overlaps the next, in [0, 1). None: the model's default.
        lookahead_ms: lookahead of a streaming model, 1 to 60000 ms. None: whole chunks.

    Raises:
        ArgumentTypeError: a setting has a wrong type.
        ArgumentValueError: a setting is out of range.
    """

    stem: str = "vocals"
    gain_db: float = 0.0
    mix: float = 1.0
    overlap: float | None = None
    lookahead_ms: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.stem, str):
            raise ArgumentTypeError(f"stem must be a string; got {self.stem!r}: give e.g. 'vocals'")
        self._check("gain_db", -math.inf, MAX_GAIN_DB, "-inf to 100 dB", "20 dB is a factor of 10")
        self._check("mix", 0, 1, "0 (dry) to 1 (wet)", "half of each is 0.5")
        if self.overlap is not None:
            below_one = math.nextafter(1, 0)
            fix = "MSST's num_overlap 2 is 0.5, its 4 is 0.75"
            self._check("overlap", 0, below_one, "in [0, 1)", fix)
        if self.lookahead_ms is not None:
            allowed = "1 to 60000 ms, or None"
            self._check("lookahead_ms", 1, MAX_LOOKAHEAD_MS, allowed, "500 is half a second")

    def _check(self, name: str, low: float, high: float, allowed: str, fix: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, Real):
            raise ArgumentTypeError(f"{name} must be a number, {allowed}; got {value!r}: {fix}")
        number = float(value)
        if not low <= number <= high:  # NaN included
            raise ArgumentValueError(f"{name} must be {allowed}; got {value!r}: {fix}")
        object.__setattr__(self, name, number)

    @property
    def stream_settings(self) -> tuple[float | None, ...]:
        """The values of ``STREAM_SETTINGS``; streams with equal values have equal stems."""
        return tuple(getattr(self, name) for name in STREAM_SETTINGS)

    def for_outputs(self, outputs: Sequence[str]) -> EffectSettings:
        """Returns these settings with an alias of the stem replaced by the model's own name.

        Raises:
            ArgumentValueError: the model has no such stem.
        """
        try:
            return replace(self, stem=find_stem(self.stem, outputs))
        except ModelError as error:
            raise ArgumentValueError(str(error)) from None

    def open_stream(self, separator: Separator, sample_rate: float, channels: int) -> Stream:
        """Opens a stream of stems with these settings."""
        return separator.stream(
            sample_rate,
            channels,
            lookahead_ms=self.lookahead_ms,
            overlap=self.overlap if self.lookahead_ms is None else None,
        )

    def to_state(self) -> bytes:
        """Returns the settings as a host saves them."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_state(cls, state: bytes, outputs: Sequence[str]) -> EffectSettings:
        """Reads what :meth:`to_state` returned, for a model with these outputs.

        Raises:
            ArgumentValueError: the state is damaged or incomplete, a setting is out of range, or
                the model has no such stem.
        """
        try:
            saved = json.loads(state)
            settings = cls(**{field.name: saved[field.name] for field in fields(cls)})
            return settings.for_outputs(outputs)
        except (ValueError, TypeError, KeyError) as error:
            raise ArgumentValueError(
                "the state must be one that a Separate of this model saved; got "
                f"{state[:80]!r}, {error!r}: read it from the raw_state of another Separate"
            ) from None


class Setting(Generic[Read, Write]):
    """An attribute for one setting of the object that has it."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: HasSettings, owner: type) -> Read: ...
    def __get__(self, instance: HasSettings | None, owner: type) -> Self | Read:
        if instance is None:
            return self
        value: Read = getattr(instance.settings, self._name)
        return value

    def __set__(self, instance: HasSettings, value: Write) -> None:
        instance._change_settings(**{self._name: value})


class HasSettings:
    """Base class of effects: an attribute for each field of :class:`EffectSettings`."""

    stem = Setting[str, str]("The stem that passes, under the model's own name for it.")
    gain_db = Setting[float, float]("Gain of the stem, dB; -inf mutes it.")
    mix = Setting[float, float]("0 is the input (dry), 1 the stem (wet).")
    overlap = Setting[float | None, float | None](
        "Fraction of a chunk that overlaps the next, in [0, 1); None selects the model's default."
    )
    lookahead_ms = Setting[float | None, float | None](
        "How far a streaming model sees beyond its block, ms; None runs whole chunks."
    )

    @property
    def settings(self) -> EffectSettings:
        """All settings, with the overlap that is in effect."""
        raise NotImplementedError

    def _change_settings(self, **changes: Any) -> None:
        """Changes several settings in one step; if one is invalid, changes none of them."""
        raise NotImplementedError
