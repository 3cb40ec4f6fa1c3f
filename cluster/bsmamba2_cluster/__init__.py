"""Separation of libraries that are larger than one machine, with Ray and object storage.

    separate_library("s3://music/albums", "s3://music/stems", on="ray://HEAD:10001")

:class:`SeparateSongs` is the same for a pipeline of your own, as a class for Ray's
``Dataset.map_batches``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bsmamba2_cluster.library import separate_library
    from bsmamba2_cluster.pools import gpus_per_worker
    from bsmamba2_cluster.run_report import RunSummary
    from bsmamba2_cluster.separate_songs import Result, SeparateSongs
    from bsmamba2_cluster.storage import StorageError

__all__ = [
    "Result",
    "RunSummary",
    "SeparateSongs",
    "StorageError",
    "gpus_per_worker",
    "separate_library",
]

_MODULES = {
    "Result": "separate_songs",
    "RunSummary": "run_report",
    "SeparateSongs": "separate_songs",
    "StorageError": "storage",
    "gpus_per_worker": "pools",
    "separate_library": "library",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that only its users need Ray."""
    if name not in _MODULES:
        raise AttributeError(f"module 'bsmamba2_cluster' has no attribute {name!r}")
    found = getattr(import_module(f"bsmamba2_cluster.{_MODULES[name]}"), name)
    globals()[name] = found
    return found
