"""The names of stems and their aliases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bsmamba2.errors import ModelError, not_one_of

ALIASES = {
    "instrumental": ("other", "accompaniment", "no_vocals"),
    "vocals": ("vocal", "voice"),
    "drums": ("drum",),
    "guitar": ("guitars",),
    "piano": ("keys",),
}
"""Other common names of a stem."""


class UnknownStem(ModelError, KeyError):  # noqa: N818 - public; named like KeyError
    """A stem that the model does not separate."""

    # KeyError would print its message in quotes.
    __str__ = Exception.__str__


def find_stem(name: str, known: Sequence[str]) -> str:
    """Returns the known stem that a name or alias refers to.

    Raises:
        UnknownStem: the model has no such stem; the message lists those it has.
    """
    if name in known:  # before any alias: a model of four stems has an `other` of its own
        return name
    for stem in known:
        if name in ALIASES.get(stem, ()):
            return stem
    raise UnknownStem(not_one_of("stem", known, name))


def wanted_stems(
    names: Iterable[str] | None, known: Sequence[str], default: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Returns the requested stems, in the order of the known ones.

    Args:
        names: names or aliases; one name as text; or None for the default.
        known: the stems of the model.
        default: the stems that None stands for. Default: all.

    Raises:
        UnknownStem: see :func:`find_stem`.
    """
    names = (names,) if isinstance(names, str) else names
    default = known if default is None else default
    requested = default if names is None else {find_stem(name, known) for name in names}
    return tuple(stem for stem in known if stem in requested)
