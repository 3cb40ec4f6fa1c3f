"""ONNX Runtime's real CUDA provider, over stand-ins for NVIDIA's libraries.

Placement, optimiser, launches, copies and the capture of graphs are real; kernels compute nothing,
so no number that comes out means anything. Needs onnxruntime-gpu, which ``tests/run`` puts into
``build/onnxruntime-gpu``, outside the environment of the other tests.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import bsmamba2.models

from .stand_in.build import build
from .stand_in.log import Run, read_runs
from .stand_in.profile import read_nodes

ROOT = Path(__file__).parents[2]
SITE = Path(os.environ.get("BSMAMBA2_ORT_GPU", ROOT / "build" / "onnxruntime-gpu"))
PROVIDER = SITE / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so"
HEADERS = SITE / "nvidia" / "cu13" / "include"
GRAPHS = Path(bsmamba2.models.__file__).parent / "graphs"
REPEATS = 3
"""Runs before a shape is recorded; see :mod:`bsmamba2.engines.ort_binding`."""

pytestmark = [
    pytest.mark.skipif(
        not PROVIDER.exists() or not HEADERS.exists(),
        reason="onnxruntime-gpu is not in build/onnxruntime-gpu; tests/run installs it",
    )
]


@dataclass(frozen=True)
class Outcome:
    """What a graph did on the stand-ins."""

    placed: dict[str, int]
    profile: Path
    recorded: bool
    warnings: list[str]
    runs: list[Run]


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(PROVIDER, HEADERS, tmp_path_factory.mktemp("stand_in"))


@pytest.fixture(scope="session")
def run(libraries: Path) -> Callable[[str, float], Outcome]:
    """``run("paper-waveform", 8.0)`` runs a shipped graph six times on chunks of 8 s."""

    @cache
    def run(graph: str, seconds: float) -> Outcome:
        log = libraries / f"{graph}-{seconds:g}.log"
        command = [sys.executable, str(ROOT / "tests/gpu/stand_in/run.py")]
        command += [str(GRAPHS / f"{graph}.onnx"), str(seconds), "--profile", str(log)]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(log))
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        profile = Path(found.pop("profile"))
        return Outcome(**found, profile=profile, runs=read_runs(log))

    def _environment(log: Path) -> dict[str, str]:
        return os.environ | {
            "LD_LIBRARY_PATH": str(libraries),
            "PYTHONPATH": str(SITE),
            "STAND_IN_LOG": str(log),
        }

    return run


@pytest.mark.parametrize(
    "graph", ["tiny-waveform", "tiny-waveform-bf16", "medium-waveform", "paper-waveform"]
)
def test_a_repeated_chunk_is_recorded_once_and_replayed(
    run: Callable[[str, float], Outcome], graph: str
) -> None:
    outcome = run(graph, 1.0)
    assert (outcome.recorded, outcome.warnings) == (True, [])
    *plain, _ = outcome.runs[1 : 1 + REPEATS]
    assert all(not run.count("replay") and run.launches for run in plain)
    for replayed in outcome.runs[2 + REPEATS : -1]:
        assert (replayed.count("replay"), replayed.launches) == (1, [])


@pytest.mark.parametrize("graph", ["tiny-waveform", "paper-waveform"])
def test_nothing_that_cuda_forbids_happens(
    run: Callable[[str, float], Outcome], graph: str
) -> None:
    assert not [line for r in run(graph, 1.0).runs for line in r.others if "illegal" in line]


def test_weights_of_lower_precision_are_rounded_when_the_model_is_loaded(
    run: Callable[[str, float], Outcome],
) -> None:
    plain, narrow = (run(name, 1.0).runs[2] for name in ("tiny-waveform", "tiny-waveform-bf16"))
    casts = [sum("Cast" in launch.name for launch in r.launches) for r in (plain, narrow)]
    # Inputs of products are rounded and results widened; the weights would be 31 more.
    assert 0 < casts[1] - casts[0] <= 20


@pytest.mark.parametrize("graph", ["paper-waveform", "paper-waveform-bf16"])
def test_only_shape_arithmetic_runs_on_the_cpu(
    run: Callable[[str, float], Outcome], graph: str
) -> None:
    """The nodes there add, multiply and divide lengths, and join them to shapes of six integers."""
    outcome = run(graph, 1.0)
    on_cpu = [n for n in read_nodes(outcome.profile, 1) if n.provider == "CPUExecutionProvider"]
    tensors = [tensor for node in on_cpu for tensor in (*node.inputs, *node.outputs)]
    assert {kind for kind, _ in tensors} == {"int64"}
    assert max(math.prod(shape) for _, shape in tensors) <= 6


def test_a_chunk_at_the_papers_size_is_few_operations(
    run: Callable[[str, float], Outcome],
) -> None:
    chunk = run("paper-waveform-bf16", 8.0).runs[2]
    assert chunk.operations <= 250
    assert chunk.large_elementwise <= 60


def test_large_means_do_not_take_the_slow_reductions_of_cudnn(
    run: Callable[[str, float], Outcome],
) -> None:
    assert run("paper-waveform", 1.0).runs[2].count("reduce") == 0


def test_only_audio_crosses_the_bus_in_large_copies(run: Callable[[str, float], Outcome]) -> None:
    audio = 2 * 44100 * 4
    large = [copy for copy in run("paper-waveform", 1.0).runs[2].copies if copy[2] > 40000]
    crossing = [bytes_ for _, kind, bytes_ in large if kind in (1, 2)]
    assert crossing == [audio, audio]


def test_no_copy_stops_the_host(run: Callable[[str, float], Outcome]) -> None:
    plain, *_, replayed = run("tiny-waveform-bf16", 1.0).runs[2:-1]
    for repeated in (plain, replayed):
        assert [way for way, _, _ in repeated.copies if way == "sync"] == []
