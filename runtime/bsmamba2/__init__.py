"""BSMamba2 vocal separation: a song in, its stems out.

    import bsmamba2

    stems = bsmamba2.separate("song.flac")
    stems["vocals"], stems["instrumental"], stems.sample_rate
    stems.save("stems/")

:class:`Separator` keeps a model loaded for many songs and takes arrays too. Everything that goes
wrong on purpose is a :class:`bsmamba2.Error`.
"""

from importlib import metadata as _metadata

from bsmamba2.errors import (
    AudioError,
    Cancelled,
    DeviceError,
    Error,
    MissingExtra,
    ModelError,
)
from bsmamba2.manifest import Manifest
from bsmamba2.separator import Separator, separate
from bsmamba2.stems import Stems

try:
    __version__ = _metadata.version("bsmamba2")
except _metadata.PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"

__all__ = [
    "AudioError",
    "Cancelled",
    "DeviceError",
    "Error",
    "Manifest",
    "MissingExtra",
    "ModelError",
    "Separator",
    "Stems",
    "__version__",
    "separate",
]
