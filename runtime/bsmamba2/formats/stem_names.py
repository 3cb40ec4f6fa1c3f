"""The names of stems, and what else people call them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bsmamba2.errors import ModelError

ALIASES = {"instrumental": ("other", "accompaniment", "no_vocals")}
"""What people also call a stem."""


class UnknownStem(ModelError, KeyError):  # noqa: N818 - a KeyError by another name
    """A stem that the model does not make."""

    # KeyError would print its message in quotes.
    __str__ = Exception.__str__


def find_stem(name: str, known: Sequence[str]) -> str:
    """The known stem that a name or an alias means.

    Raises:
        UnknownStem: none; the message lists what there is.
    """
    for stem in known:
        if name == stem or name in ALIASES.get(stem, ()):
            return stem
    raise UnknownStem(f"stem must be one of {', '.join(known)}; {name!r} came")


def wanted_stems(names: Iterable[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The known stems that are asked for, in their order; None asks for all, text for one.

    Raises:
        UnknownStem: as :func:`find_stem`.
    """
    names = (names,) if isinstance(names, str) else names
    asked = known if names is None else {find_stem(name, known) for name in names}
    return tuple(stem for stem in known if stem in asked)
