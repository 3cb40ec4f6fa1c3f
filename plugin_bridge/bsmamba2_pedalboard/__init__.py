"""Separation in a Pedalboard chain, offline.

    from pedalboard import Compressor, Reverb
    from bsmamba2_pedalboard import Board, SeparationEffect

    board = Board([Compressor(), SeparationEffect(stem="vocals"), Reverb()])
    output = board(audio, sample_rate)

Pedalboard's own containers take native plugins alone; a Board takes both.
"""

try:
    import pedalboard as _pedalboard  # noqa: F401 - asked for here, to say what installs it
except ImportError as _error:
    from bsmamba2 import MissingExtra

    raise MissingExtra(
        'bsmamba2_pedalboard needs pedalboard: pip install "bsmamba2[pedalboard]"'
    ) from _error

from bsmamba2_pedalboard.board import Board
from bsmamba2_pedalboard.effect import SeparationEffect

__all__ = ["Board", "SeparationEffect"]
