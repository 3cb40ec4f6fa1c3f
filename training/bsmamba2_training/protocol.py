"""The conditions of an evaluation, which are published with its scores."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bsmamba2 import Separator
from bsmamba2.files.hashing import file_sha256
from bsmamba2.models.combined_model import CombinedManifest
from bsmamba2.models.model_file import find_model_path
from bsmamba2_training.voices import SAMPLE_RATE


def evaluation_protocol(
    systems: Sequence[str],
    dataset: Path,
    songs: int,
    details: Mapping[str, dict[str, Any]],
    **options: Any,
) -> dict[str, Any]:
    """Returns the conditions that must be published with the scores.

    Args:
        systems: the names of what is scored, without the baselines.
        details: the protocol of each system; that of a single one is not nested.
    """
    several = len(systems) > 1
    own = {"systems": dict(details)} if several else dict(*details.values())
    packages = ("bsmamba2", "museval", "numpy", "onnxruntime", "onnxruntime-gpu", "soxr")
    return {
        **({} if several else {"system": systems[0]}),
        "dataset": dataset.resolve().name,
        "songs": songs,
        **options,
        **own,
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: installed for name in packages if (installed := _version(name))},
    }


def model_protocol(
    separator: Separator,
    model: str | os.PathLike[str] | None,
    *,
    overlap: float | None = None,
    block_ms: float | None = None,
    lookahead_ms: float | None = None,
) -> dict[str, Any]:
    """Returns the model's part of the protocol, for whole songs or, with a lookahead, a stream."""
    manifest = separator.manifest
    if lookahead_ms is None and isinstance(manifest, CombinedManifest):
        sizes = {} if overlap is None else {"overlap": overlap}
    elif lookahead_ms is None:
        overlap = manifest.overlap if overlap is None else overlap
        sizes = {"chunk_s": manifest.chunk / manifest.sample_rate, "overlap": overlap}
    else:
        stream = separator.stream(SAMPLE_RATE, 2, block_ms=block_ms, lookahead_ms=lookahead_ms)
        sizes = {
            "block_ms": lookahead_ms if block_ms is None else block_ms,
            "lookahead_ms": lookahead_ms,
            "latency_ms": 1000 * stream.latency_samples / SAMPLE_RATE,
        }
    identity: dict[str, Any] = {"model_sha256": manifest.checkpoint_sha256}
    if isinstance(manifest, CombinedManifest):
        identity = {**manifest.settings, "fingerprint": manifest.fingerprint}
    elif model is not None:
        identity = {"model_sha256": file_sha256(find_model_path(model))}
    return {
        "model": manifest.name,
        **identity,
        **{name: round(value, 3) for name, value in sizes.items()},
        "precision": manifest.precision,
        "device": separator.device,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
