"""Runs a shipped graph on the stand-ins and prints what happened as JSON.

    python run.py GRAPH SECONDS [--runs N] [--profile PREFIX]

The log has a line ``mark RUN`` before each run and ``mark end`` after the last. With ``--profile``
ONNX Runtime writes its profile to a file whose name begins with the prefix.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime

from bsmamba2.audio import fourier
from bsmamba2.devices.device import Device
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.formats.onnx_file import read_onnx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graph", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--profile", default="")
    arguments = parser.parse_args()
    if arguments.profile:
        _profile(arguments.profile)
    # It would load NVIDIA's own libraries, where a package has them, before the stand-ins.
    onnxruntime.preload_dlls = lambda: None
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("bsmamba2").addHandler(handler)

    file = read_onnx(arguments.graph)
    manifest = file.manifest
    random = np.random.default_rng(0)
    weights = {
        name: random.normal(0, 0.02, shape).astype(np.float32)
        for name, shape in manifest.initialisers.items()
    } | (fourier.matrices(manifest.n_fft, manifest.hop) if manifest.io == "waveform" else {})
    engine = OrtEngine(file, Device("cuda", 0), weights if file.missing_weights else None)
    placed: Counter[str] = Counter()
    for part in engine._session.get_provider_graph_assignment_info():
        placed.update({part.ep_name: len(part.get_nodes())})
    log = ctypes.CDLL("libcudart.so.13").stand_in_log
    chunk = np.zeros((manifest.channels, round(arguments.seconds * manifest.sample_rate)), "f4")
    for run in range(arguments.runs):
        log(f"mark\t{run}".encode())
        engine.run(chunk)
    log(b"mark\tend")
    assert engine._bound is not None
    recorded = engine._bound._recorded is not None
    found = {"placed": placed, "recorded": recorded, "warnings": warnings}
    if arguments.profile:
        found["profile"] = engine._session.end_profiling()
    print(json.dumps(found))


def _profile(prefix: str) -> None:
    """Makes every session write a profile."""
    options = onnxruntime.SessionOptions

    def profiled() -> onnxruntime.SessionOptions:
        chosen = options()
        chosen.enable_profiling, chosen.profile_file_prefix = True, prefix
        return chosen

    onnxruntime.SessionOptions = profiled


if __name__ == "__main__":
    main()
