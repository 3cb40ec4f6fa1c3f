"""Whether a model may be trusted on a device: it must reproduce its check there, once.

The check is one run of the engine on a second of noise, or of a streaming model a stream of it. A
device that passes is remembered in the user's cache by everything that the answer may depend on:
the model's bytes, the versions of what computes, and the hardware. One that fails is tried again
next time, since a new driver mends it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bsmamba2.devices.device import parse
from bsmamba2.errors import ModelError
from bsmamba2.files.cache import cache_folder, read_record, write_record
from bsmamba2.formats.manifest import Check, Manifest
from bsmamba2.formats.protocols import Engine
from bsmamba2.models.check import reproduce

SHIPPED = Path(__file__).parent / "weights" / "checks"
"""The checks of the weights that come with the package."""


def require_verdict(engine: Engine, about: Mapping[str, str]) -> None:
    """Runs the engine's check, unless it has been reproduced here before; a model without one goes.

    Args:
        about: what the answer depends on beside device and hardware: the SHA-256 of the model, the
            versions of what runs it.

    Raises:
        DeviceError: the engine does not reproduce its check.
    """
    check, device = engine.manifest.check, parse(engine.device)
    if check is None or device is None:
        return
    known = {**about, "device": device.kind, "hardware": device.hardware}
    path = cache_folder() / "verdicts" / _name(json.dumps(known, sort_keys=True))
    kept = read_record(path)
    if kept is not None and kept.get("about") == known and _passed(kept, check):
        return
    found = reproduce(engine)
    write_record(path, {"about": known, "snr_db": min(found, 999.0)})


def find_check(manifest: Manifest) -> Check | None:
    """The check that was made for this checkpoint here before, or that came with its weights."""
    name = _check_name(manifest)
    kept = read_record(cache_folder() / "checks" / name) or read_record(SHIPPED / name)
    try:
        check = None if kept is None else Check.from_json(kept)
    except (KeyError, TypeError, ValueError, ModelError):
        return None
    if check is None:
        return None
    samples = len(manifest.stems) * manifest.channels * check.samples
    return check if len(check.expected) == -(-samples // check.stride) else None


def keep_check(manifest: Manifest, check: Check, folder: Path | None = None) -> bool:
    """Keeps a check for :func:`find_check`, by the checkpoint's SHA-256; False if it cannot.

    Args:
        folder: the user's cache where none is named.
    """
    path = (folder or cache_folder() / "checks") / _check_name(manifest)
    return write_record(path, check.to_json())


def _passed(kept: Mapping[str, Any], check: Check) -> bool:
    found = kept.get("snr_db")
    return isinstance(found, float) and math.isfinite(found) and found >= check.snr_db


def _check_name(manifest: Manifest) -> str:
    # The sizes that a checkpoint may state beside its weights are in the name as well.
    sizes = manifest.sample_rate, manifest.hop, manifest.stems
    form = " a stream" if manifest.streaming else ""
    return _name(f"{manifest.checkpoint_sha256} {sizes}{form}")


def _name(key: str) -> str:
    return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
