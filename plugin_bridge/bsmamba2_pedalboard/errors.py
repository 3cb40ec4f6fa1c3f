"""Pedalboard's types of errors, which are ours as well."""

from __future__ import annotations

from bsmamba2 import AudioError, Error


class ArgumentTypeError(Error, TypeError):
    """An argument of a type that is not taken; a TypeError, as Pedalboard raises."""


class ArgumentValueError(Error, ValueError):
    """An argument out of its range; a ValueError, as Pedalboard raises."""


class ArrayShapeError(AudioError, RuntimeError):
    """An array that reads as no audio or as two; a RuntimeError, as Pedalboard raises."""
