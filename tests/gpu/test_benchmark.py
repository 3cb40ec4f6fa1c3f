"""``python -m benchmarks.gpu`` on the CPU: every section, with tiny sizes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bsmamba2.devices import kernel
from bsmamba2_network import BSMamba2, Config, mamba_kernels
from bsmamba2_network.scan import scan

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))
from benchmarks.gpu import chip, engines, network, report, rows, scans, song  # noqa: E402 - needs the path

CEILINGS = {"copy bytes/s": 1e10, "bf16 operations/s": 1e10}
MISSING_PACKAGES = """
import sys


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        missing = ("soundfile", "soxr", "mutagen", "platformdirs", "click", "rich", "mamba_ssm")
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, NotInstalled())
from benchmarks.gpu import chip, compiled, engine, network, rows, scans
from bsmamba2.devices import cuda, kernel
from bsmamba2_network import BSMamba2
from bsmamba2_network.scan import mamba2_scan

chip.DEVICE = "cpu"
"""
KERNELS = """
scans.LENGTHS, scans.SIZES = ((1, 0), (2, 3), (1, 70)), ((3, 64), (1, 128))
ours = scans.Kernel(cuda.load(kernel.library()))
checked = scans.check_scan(ours)
rows.print_table("numbers", checked)
assert all(row["ok"] for row in checked) and len(checked) == 3
mamba2_scan.register_kernel("cpu")(ours)
net = BSMamba2.untrained("tiny").eval()
ours.states, network.CHECK_SECONDS = False, 0.05
checked = network.check_network(net, network.Truth(net, ours))
rows.print_table("numbers", checked)
assert [row["ok"] for row in checked] == [True] * 3 and not ours.bypassed
scans.AXES, scans.HEADS = {"time": (2, 70)}, 2
timed = scans.time_scans(ours, {"copy bytes/s": 1e9, "bf16 operations/s": 1e9})
rows.print_table("scan", timed)
assert [row["ok"] for row in timed if "ms" in row] == [True] * 4
"""
COMPILED = """
compiled.AXES, compiled.HEADS = {"time": (2, 70)}, 2
task = {
    "what": "compile", "device": "cpu", "library": kernel.library(), "preset": "tiny",
    "ceilings": {"copy bytes/s": 1e9, "bf16 operations/s": 1e9}, "compiler": "aot_eager",
    "seconds": 0.05,
}
timed = list(compiled.measure(task))
rows.print_table("compiled", timed)
assert all(row["ok"] and row["ms"] > 0 for row in timed) and len(timed) == 3
"""


@pytest.mark.skipif(kernel.library() is None, reason="the kernels are not installed")
@pytest.mark.parametrize("section", [KERNELS, COMPILED], ids=["kernels", "compiled"])
def test_the_kernels_run_through_pytorch(fake_driver: Path, section: str) -> None:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(fake_driver)}
    command = [sys.executable, "-c", MISSING_PACKAGES + section]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_gpu_the_command_exits_with_a_message() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert (done.returncode, done.stderr) == (
        2,
        "python -m benchmarks.gpu needs an NVIDIA GPU that PyTorch can use\n",
    )


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the GPU with the CPU, and the sizes with small ones."""
    monkeypatch.setattr(chip, "DEVICE", "cpu")
    monkeypatch.setattr(network, "SHAPES", ((0.1, 1), (0.05, 2)))
    monkeypatch.setattr(network, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(network, "CHUNK_SECONDS", 0.1)
    monkeypatch.setattr(song, "SONG_SECONDS", 0.2)
    monkeypatch.setattr(song, "CHUNK_SECONDS", 0.1)
    monkeypatch.setattr(song, "BATCHES", (2,))
    monkeypatch.setattr(engines, "SHAPES", ((0.1, 1),))
    monkeypatch.setattr(scans, "AXES", {"time axis": (2, 70)})
    monkeypatch.setattr(scans, "LENGTHS", ((2, 3),))
    for module in (network, scans):
        monkeypatch.setattr(module, "mamba_ssm_missing", lambda: "not installed (mamba_ssm)")


class PlainKernel:
    """Replaces our kernel with the plain scan, which PyTorch's operator runs on the CPU anyway."""

    states, bypassed = True, False

    def __call__(self, *inputs: Any) -> tuple[Tensor, ...]:
        return scan(*inputs)


class FaultyKernel(PlainKernel):
    """Scales y by the fault."""

    def __init__(self, fault: float) -> None:
        self.fault = fault

    def __call__(self, *inputs: Any) -> tuple[Tensor, ...]:
        y, *states = super().__call__(*inputs)
        return (y * self.fault, *states)


@pytest.fixture
def bench() -> network.Bench:
    net, ours = BSMamba2.untrained("tiny"), cast(scans.Kernel, PlainKernel())
    truth = network.Truth(net, ours)
    return network.Bench(net, ours, chip.Clock(9), CEILINGS, truth)


@pytest.fixture
def eager_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces a CUDA graph with the run that it would replay."""

    def captured(net: BSMamba2, waveform: Tensor, kind: str) -> Callable[[], Tensor]:
        return partial(network.separate, net, waveform, kind)

    monkeypatch.setattr(network, "captured", captured)


Measure = Callable[..., report.Report]


@pytest.fixture
def measure(
    bench: network.Bench, eager_graphs: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Measure:
    """``measure(**options)``: the report of every section, with one row per other process."""

    def run_process(module: str, task: rows.Task, seconds: float, **environment: str) -> rows.Rows:
        return [{"what": task["what"], "note": module}]

    monkeypatch.setattr(rows, "run_process", run_process)
    monkeypatch.setattr(engines, "onnxruntime_missing", lambda: "")

    def run(**options: bool) -> report.Report:
        result = report.Report(bench.clock, tmp_path / "gpu.json")
        subjects = engines.Engines("tiny", tmp_path, None, tmp_path / "kernels.so", "cpu")
        report.measure(result, bench.clock, bench.net, bench.ours, subjects, [], **options)
        assert json.loads((tmp_path / "gpu.json").read_text()) == result.contents
        return result

    return run


def test_every_section_is_reported_in_order_and_has_no_wrong_number(measure: Measure) -> None:
    result = measure()
    assert list(result.contents) == [
        "numbers of the scan", "numbers of the network", "ceilings", "song", "network",
        "network without our kernel", "scan", "ONNX Runtime", "TensorRT", "torch.compile",
    ]  # fmt: skip
    assert not result.has_wrong_numbers()
    timed = ("song", "network", "network without our kernel", "scan")
    untimed = [row for title in timed for row in result.contents[title] if "ms" not in row]
    assert all(row["note"] == "not installed (mamba_ssm)" for row in untimed)
    # Two shapes, each with a graph and without, and three more rows for the first shape.
    assert len(result.contents["network"]) == 7


def test_numbers_only_measures_no_time(measure: Measure) -> None:
    assert list(measure(numbers_only=True).contents) == [
        "numbers of the scan", "numbers of the network"
    ]  # fmt: skip


@pytest.mark.parametrize("fault", [math.nan, 0.0])
def test_a_wrong_kernel_is_reported_and_not_timed(fault: float) -> None:
    result = report.Report(chip.Clock(1), None)
    faulty = cast(scans.Kernel, FaultyKernel(fault))
    result.section("scan", lambda: scans.time_scans(faulty, CEILINGS))
    row = result.contents["scan"][0]
    assert (row["ok"], row["note"], "ms" in row) == (False, "wrong, so not timed", False)
    assert result.has_wrong_numbers()


@pytest.mark.parametrize("fault", [math.nan, 0.0])
def test_a_wrong_network_is_reported_and_not_timed(bench: network.Bench, fault: float) -> None:
    stems = bench.truth.stems(0.1)
    row = bench.row(
        "faulty", "bf16", 0.1, 2, lambda noise: lambda: fault * stems.expand(2, *stems.shape)
    )
    assert (row["ok"], row["note"], "ms" in row) == (False, "wrong, so not timed", False)


def test_an_exception_in_a_section_is_reported_and_later_sections_run() -> None:
    def fails() -> rows.Rows:
        raise RuntimeError("an illegal memory access")

    result = report.Report(chip.Clock(1), None)
    result.section("numbers of the scan", fails)
    result.section("song", lambda: [{"what": "a song", "ok": True}])
    (row,) = result.contents["numbers of the scan"]
    assert row["note"] == "RuntimeError: an illegal memory access"
    assert result.contents["song"][0]["ok"]
    assert result.has_wrong_numbers()


def test_a_section_with_no_time_left_has_a_note() -> None:
    result = report.Report(chip.Clock(0), None)
    result.section("song", list, 60)
    assert result.contents["song"] == [{"what": "song", "note": "no time left"}]
    assert not result.has_wrong_numbers()


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (RuntimeError("capture failed"), "RuntimeError: capture failed"),
    ],
)
def test_an_exception_becomes_the_note_of_its_row(
    bench: network.Bench, error: Exception, note: str
) -> None:
    def make(noise: Tensor) -> Callable[[], Tensor]:
        raise error

    assert bench.row("our kernel", "bf16", 0.1, 1, make)["note"] == note


def test_rows_without_a_graph_are_timed_when_no_graph_can_be_captured(
    bench: network.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def captured(*_: object, **__: object) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(network, "captured", captured)
    timed = network.time_network(bench)
    assert timed[0]["note"] == "RuntimeError: operation not permitted when stream is capturing"
    assert "ms" in timed[1]


def test_without_restores_the_previous_scan(bench: network.Bench) -> None:
    supports, ours = mamba_kernels.supports, bench.ours
    with scans.without(ours, mamba_ssm=True):
        with scans.without(ours):
            assert mamba_kernels.supports is not supports
        assert (ours.bypassed, mamba_kernels.supports) == (True, supports)
    assert (ours.bypassed, mamba_kernels.supports) == (False, supports)


def test_the_number_of_operations_equals_pytorchs_count() -> None:
    net = BSMamba2.untrained("tiny")
    mixture = torch.randn(1, 2, 1 + 44100 // net.config.hop, net.config.bins, 2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.separate_spectrum(mixture)
    counts = counter.get_flop_counts()["Global"]
    counted = counts.get(torch.ops.aten.mm, 0) + counts.get(torch.ops.aten.addmm, 0)
    assert network.product_operations(net.config, 1) == counted


def test_the_floor_of_a_scan_has_the_expected_magnitude() -> None:
    moved, operations = scans.scan_floor(62, 801, torch.bfloat16)
    assert 3.3e8 < moved < 3.5e8
    assert 1e10 < operations < 1e11
    assert network.product_operations(Config(), 8) == pytest.approx(2e12, rel=0.3)


def test_a_training_step_has_gradients_of_a_loss_on_waveforms(bench: network.Bench) -> None:
    assert network.time_training(bench, "step")["ok"]
    loss = network.training_step(bench.net, bench.truth.noise(0.1))
    assert 0 < loss < 1
    assert all(v.grad.abs().sum() > 0 for v in bench.net.parameters() if v.grad is not None)


def test_a_song_is_separated_whole_and_in_order() -> None:
    mixture, stems = torch.randn(2, 50), torch.zeros(2, 50)
    static = torch.zeros(2, 2, 10)
    song.separate_song(mixture, stems, 10, static, lambda: 0.5 * static[:, None])
    torch.testing.assert_close(stems, 0.5 * mixture)
