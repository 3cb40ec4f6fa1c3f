"""Separation of libraries that are larger than one machine, with Ray and object storage.

    separate_library("s3://music/albums", "s3://music/stems", on="ray://HEAD:10001")

:class:`SeparateSongs` is the same for a pipeline of your own, as a class for Ray's
``Dataset.map_batches``.
"""

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
