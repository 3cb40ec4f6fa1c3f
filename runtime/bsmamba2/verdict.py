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

from bsmamba2.cache import cache_folder, read_record, write_record
from bsmamba2.check import reproduce
from bsmamba2.device import parse
from bsmamba2.engine import Engine
from bsmamba2.errors import ModelError
from bsmamba2.manifest import Check, Manifest


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
    path = _path("verdicts", json.dumps(known, sort_keys=True))
    kept = read_record(path)
    if kept is not None and kept.get("about") == known and _passed(kept, check):
        return
    found = reproduce(engine)
    write_record(path, {"about": known, "snr_db": min(found, 999.0)})


def find_check(manifest: Manifest) -> Check | None:
    """The check that was made for this checkpoint here before, if one was."""
    kept = read_record(_check_path(manifest))
    try:
        check = None if kept is None else Check.from_json(kept)
    except (KeyError, TypeError, ValueError, ModelError):
        return None
    if check is None:
        return None
    samples = len(manifest.stems) * manifest.channels * check.samples
    return check if len(check.expected) == -(-samples // check.stride) else None


def keep_check(manifest: Manifest, check: Check) -> bool:
    """Keeps a check for :func:`find_check`, by the checkpoint's SHA-256; False if it cannot."""
    return write_record(_check_path(manifest), check.to_json())


def _passed(kept: Mapping[str, Any], check: Check) -> bool:
    found = kept.get("snr_db")
    return isinstance(found, float) and math.isfinite(found) and found >= check.snr_db


def _check_path(manifest: Manifest) -> Path:
    # The sizes that a checkpoint may state beside its weights are in the name as well.
    sizes = manifest.sample_rate, manifest.hop, manifest.stems
    form = " a stream" if manifest.streaming else ""
    return _path("checks", f"{manifest.checkpoint_sha256} {sizes}{form}")


def _path(kind: str, key: str) -> Path:
    return cache_folder() / kind / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
