"""Prepares a process that Ray started: its log, and its share of the machine's cores."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

import ray

from bsmamba2_cluster.cores import use_cores


def prepare() -> None:
    """Logs to the worker's own log, and keeps to as many cores as Ray assigned to the actor.

    ONNX Runtime starts one thread per core that the process may use. Outside of Ray's workers this
    does nothing.
    """
    if not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return
    log = logging.getLogger("bsmamba2")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    assigned = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    if hasattr(os, "sched_setaffinity") and assigned >= 1:
        use_cores(int(assigned), Path(tempfile.gettempdir()))
