"""BSMamba2 vocal separation: a song in, its stems out.

    import bsmamba2

    stems = bsmamba2.separate("song.flac")
    stems["vocals"], stems["instrumental"], stems.sample_rate
    stems.save("stems/")

:class:`Separator` keeps a model loaded for many songs, takes arrays, and opens streams. Every error
that bsmamba2 raises on purpose is a :class:`bsmamba2.Error`.
"""

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
from bsmamba2.installation import version as _version
from bsmamba2.models.combination import Chain, Ensemble
from bsmamba2.separator import Separator, separate
from bsmamba2.stems import Stems
from bsmamba2.stream import Stream

__version__ = _version()

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
