"""Separation in a Pedalboard chain.

    from pedalboard import Compressor, Pedalboard, Reverb
    from bsmamba2_pedalboard import Separate

    board = Pedalboard([Compressor(), Separate("vocals.ckpt", stem="vocals"), Reverb()])
    output = board(audio, sample_rate)

:class:`Board` and :class:`Mix` need no native code, flush their streams and share runs of the
model; they accept a :class:`SeparationEffect` or a :class:`Separate`.
"""

try:
    import pedalboard as _pedalboard  # noqa: F401 - imported here to print what installs it
except ImportError as _error:
    from bsmamba2 import MissingExtra
    from bsmamba2.installation import install_command

    raise MissingExtra(
        f"bsmamba2_pedalboard needs pedalboard: {install_command('pedalboard')}"
    ) from _error

from bsmamba2_pedalboard.board import Board, Mix
from bsmamba2_pedalboard.effect import SeparationEffect
from bsmamba2_pedalboard.python_backend import plugin_path
from bsmamba2_pedalboard.separate import Separate

__all__ = ["Board", "Mix", "Separate", "SeparationEffect", "plugin_path"]
