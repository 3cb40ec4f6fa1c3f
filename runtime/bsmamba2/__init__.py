"""BSMamba2 vocal separation: a song in, its stems out.

    import bsmamba2

    stems = bsmamba2.separate("song.flac")
    stems["vocals"], stems["instrumental"], stems.sample_rate
    stems.save("stems/")

:class:`Separator` keeps a model loaded for many songs, takes arrays, and opens streams. Every error
that bsmamba2 raises on purpose is a :class:`bsmamba2.Error`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bsmamba2.errors import (
        AudioError,
        Cancelled,
        DeviceError,
        Error,
        MissingExtra,
        ModelError,
    )
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.formats.stem_names import find_stem
    from bsmamba2.models.combination import Chain, Ensemble
    from bsmamba2.separator import Separator, separate
    from bsmamba2.stems import Stems
    from bsmamba2.stream import Stream

    __version__: str

__all__ = [
    "AudioError",
    "Cancelled",
    "Chain",
    "DeviceError",
    "Ensemble",
    "Error",
    "Manifest",
    "MissingExtra",
    "ModelError",
    "Separator",
    "Stems",
    "Stream",
    "__version__",
    "find_stem",
    "separate",
]

_MODULES = {
    "Chain": "models.combination",
    "Ensemble": "models.combination",
    "Manifest": "formats.manifest",
    "Separator": "separator",
    "Stems": "stems",
    "Stream": "stream",
    "find_stem": "formats.stem_names",
    "separate": "separator",
}
"""The module of each public name that is not in ``errors``."""


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used.

    The command line can then show its help, and be stopped, without waiting for NumPy.
    """
    if name == "__version__":
        found: Any = import_module("bsmamba2.installation").version()
    elif name in __all__:
        found = getattr(import_module(f"bsmamba2.{_MODULES.get(name, 'errors')}"), name)
    else:
        raise AttributeError(f"module 'bsmamba2' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
