"""A mix: one signal from the stems, each at its own gain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bsmamba2.audio.array import Audio, Exact
from bsmamba2.errors import AudioError, shown
from bsmamba2.formats.stem_names import find_stem

MAX_DB = 40.0
"""The most gain; more is a mistake."""

MIX = "mix"
"""What file names and results call a mix, in place of a stem."""


@dataclass(frozen=True)
class Mix:
    """The gain of each stem, in dB. −inf, and a stem that is not listed, is silence.

    Args:
        gains_db: by the names of the stems or their aliases.

    Raises:
        AudioError: a gain is out of range, or every stem is silent.
    """

    gains_db: Mapping[str, float]

    def __post_init__(self) -> None:
        for stem, gain_db in self.gains_db.items():
            if not -math.inf <= gain_db <= MAX_DB:
                raise AudioError(
                    f"the gain of {stem} must be -inf, or at most {MAX_DB:g} dB; got {gain_db:g}"
                )
        if not any(gain_db > -math.inf for gain_db in self.gains_db.values()):
            raise AudioError(
                f"a mix must have a stem that is not silent; got {shown(dict(self.gains_db))}: "
                "stems that are not listed are silent too"
            )

    @classmethod
    def parse(cls, text: str) -> Mix:
        """Reads ``vocals=-14,instrumental=0``; spaces and ``dB`` after a gain are allowed.

        Raises:
            AudioError: the text is not of this form, names a stem twice, or a gain is out of range.
        """
        gains: dict[str, float] = {}
        for part in text.split(","):
            stem, equals, gain = (word.strip() for word in part.partition("="))
            number = gain.lower().removesuffix("db").strip().replace("−", "-")
            try:
                gain_db = float(number)
            except ValueError:
                gain_db = math.nan
            if not (stem and equals) or math.isnan(gain_db):
                raise AudioError(
                    f"a mix must be stems with gains in dB, such as vocals=-14,instrumental=0; got "
                    f"{shown(text)}"
                )
            if stem in gains:
                raise _twice(stem)
            gains[stem] = gain_db
        return cls(gains)

    def resolve(self, known: Sequence[str]) -> dict[str, float]:
        """Returns the gain in dB of each stem that is not silent, in the order of the known ones.

        Raises:
            ModelError: the model has no such stem.
            AudioError: two names mean the same stem.
        """
        found: dict[str, float] = {}
        for name, gain_db in self.gains_db.items():
            stem = find_stem(name, known)
            if stem in found:
                raise _twice(stem)
            found[stem] = gain_db
        return {stem: found[stem] for stem in known if found.get(stem, -math.inf) > -math.inf}

    def weights(self, known: Sequence[str]) -> tuple[float, ...]:
        """Returns the factor of each known stem; raises the errors of :meth:`resolve`."""
        gains = self.resolve(known)
        return tuple(10 ** (gains[stem] / 20) if stem in gains else 0.0 for stem in known)


def apply(weights: Sequence[float], outputs: Audio | Exact) -> Exact:
    """Returns the mix (channels, n) of outputs (outputs, channels, n)."""
    mixed: Exact = np.tensordot(np.asarray(weights), outputs.astype(np.float64), axes=1)
    return mixed


def _twice(stem: str) -> AudioError:
    return AudioError(f"a mix must give each stem one gain; got {stem} twice")
