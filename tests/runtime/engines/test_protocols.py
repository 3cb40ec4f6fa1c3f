"""Engines are recognised by what they can do, not by their class."""

from __future__ import annotations

from bsmamba2.devices.device import CPU
from bsmamba2.engines.float32_twin import ReducedPrecisionOrtEngine
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.protocols import Engine, ReducedPrecisionEngine, Stepper
from bsmamba2.engines.step_engine import StepEngine, StepsAsEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.graph import shipped_graphs
from support.engines import Stubs
from support.fixtures import WriteOnnx
from support.models import gain_model, random_weights


def test_only_engines_of_reduced_precision_have_a_twin(write_onnx: WriteOnnx, stub: Stubs) -> None:
    file = read_onnx(write_onnx(gain_model()))
    twin = ReducedPrecisionOrtEngine(file, CPU, stub.half)
    assert isinstance(twin, ReducedPrecisionEngine)
    for engine in (OrtEngine(file), stub.half()):
        assert not isinstance(engine, ReducedPrecisionEngine)


def test_engines_and_steppers_satisfy_their_protocols(write_onnx: WriteOnnx, stub: Stubs) -> None:
    """mypy checks the assignments; this checks that the promised attributes exist."""
    graph = next(g for g in shipped_graphs() if g.path.stem == "tiny-streaming")
    steps = StepEngine(graph, CPU, random_weights())
    file = read_onnx(write_onnx(gain_model()))
    engines: list[Engine] = [OrtEngine(file), StepsAsEngine(steps), stub.half()]
    steppers: list[Stepper] = [steps, stub.passing()]
    assert [engine.device for engine in engines] == [CPU] * 3
    assert [stepper.device for stepper in steppers] == [CPU] * 2
    assert all(engine.manifest.stems == ("vocals",) for engine in engines)
    assert all(stepper.manifest.stems == ("vocals",) for stepper in steppers)
