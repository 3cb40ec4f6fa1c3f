"""Verdicts: a model must reproduce its check on a device once before it is trusted there.

The check is one run of the engine on a second of noise; a streaming model runs it as a stream. A
passed check is stored in the user's cache, under a key of everything that the output may depend on:
the model's bytes, the software's versions, and the hardware. A check that failed runs again the
next time, because a new driver may have fixed the device.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bsmamba2.audio.snr import IDENTICAL_DB
from bsmamba2.engines.protocols import Engine
from bsmamba2.errors import ModelError
from bsmamba2.files.cache import cache_folder, read_record, write_record
from bsmamba2.formats.manifest import Check, Manifest
from bsmamba2.models.check import reproduce

SHIPPED = Path(__file__).parent / "weights" / "checks"
"""The checks of the shipped weights."""


def require_verdict(
    engine: Engine, about: Mapping[str, str], least_db: float | None = None
) -> None:
    """Runs the engine's check, unless it has passed here before; a model without a check passes.

    Args:
        engine: the engine on its device.
        about: what the output depends on besides device and hardware: the SHA-256 of the model and
            the versions of the software.
        least_db: the SNR that the check must reach. Default: the check's own.

    Raises:
        DeviceError: the engine does not reproduce its check.
    """
    check, device = engine.manifest.check, engine.device
    if check is None:
        return
    known = {**about, "device": device.kind, "hardware": device.hardware}
    path = cache_folder() / "verdicts" / _name(json.dumps(known, sort_keys=True))
    kept = read_record(path)
    if (
        kept is not None
        and kept.get("about") == known
        and _passed(kept, check.snr_db if least_db is None else least_db)
    ):
        return
    found = reproduce(engine, least_db)
    write_record(path, {"about": known, "snr_db": min(found, IDENTICAL_DB)})


def find_check(manifest: Manifest) -> Check | None:
    """Returns the check that was computed here for a checkpoint, or ships with it, or None."""
    name = _check_name(manifest)
    kept = read_record(cache_folder() / "checks" / name) or read_record(
        SHIPPED / name, shipped=True
    )
    try:
        check = None if kept is None else Check.from_json(kept)
    except (KeyError, TypeError, ValueError, ModelError):
        return None
    if check is None:
        return None
    samples = len(manifest.stems) * manifest.channels * check.samples
    return check if len(check.expected) == -(-samples // check.stride) else None


def keep_check(manifest: Manifest, check: Check, folder: Path | None = None) -> bool:
    """Stores a check for :func:`find_check`; returns False if it cannot be written.

    Args:
        manifest: the model's manifest.
        check: the check to store.
        folder: where to store it. Default: the user's cache.
    """
    path = (folder or cache_folder() / "checks") / _check_name(manifest)
    return write_record(path, check.to_json())


def _passed(kept: Mapping[str, Any], least_db: float) -> bool:
    found = kept.get("snr_db")
    return isinstance(found, float) and math.isfinite(found) and found >= least_db


def _check_name(manifest: Manifest) -> str:
    # The name includes the sizes that a checkpoint may state next to its weights.
    sizes = manifest.sample_rate, manifest.hop, manifest.stems
    form = " a stream" if manifest.streaming else ""
    # What only other networks have is left out for BSMamba2, so that its kept checks stay valid.
    switches = manifest.zero_dc, manifest.normalize, manifest.fixed_length and manifest.chunk
    form += f" {switches}" if any(switches) else ""
    return _name(f"{manifest.checkpoint_sha256} {sizes}{form}")


def _name(key: str) -> str:
    return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
