"""Errors that are both ours and of the type that Pedalboard raises."""

from __future__ import annotations

from bsmamba2 import AudioError, Error


class ArgumentTypeError(Error, TypeError):
    """An argument of a wrong type; a TypeError, as in Pedalboard."""


class ArgumentValueError(Error, ValueError):
    """An argument that is out of range; a ValueError, as in Pedalboard."""


class ArrayShapeError(AudioError, RuntimeError):
    """An array that is not audio, or is ambiguous; a RuntimeError, as in Pedalboard."""
