"""Separation in a Pedalboard chain, offline.

    from bsmamba2_pedalboard import SeparationEffect

    vocals = SeparationEffect(stem="vocals")(audio, sample_rate)
"""

try:
    import pedalboard as _pedalboard  # noqa: F401 - asked for here, to say what installs it
except ImportError as _error:
    from bsmamba2 import MissingExtra

    raise MissingExtra(
        'bsmamba2_pedalboard needs pedalboard: pip install "bsmamba2[pedalboard]"'
    ) from _error

from bsmamba2_pedalboard.effect import SeparationEffect

__all__ = ["SeparationEffect"]
