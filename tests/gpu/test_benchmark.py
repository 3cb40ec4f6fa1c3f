"""benchmarks/gpu.py, as far as it goes without a GPU: every row, on the CPU and in tiny sizes."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bsmamba2.devices import kernel
from bsmamba2_network import BSMamba2, Config

ROOT = Path(__file__).parents[2]
MOST = {"copy bytes/s": 1e10, "bf16 operations/s": 1e10}
PARTS_ALONE = """
import sys


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        missing = ("soundfile", "soxr", "mutagen", "platformdirs", "click", "rich", "mamba_ssm")
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, NotInstalled())
sys.path.insert(0, "benchmarks")
import gpu  # which knows how to do without them
import gpu_chip, gpu_compiled, gpu_network, gpu_scans, torch

gpu_chip.DEVICE = "cpu"
"""
KERNELS = """
gpu_scans.LENGTHS, gpu_scans.SIZES = ((1, 0), (2, 3), (1, 70)), ((3, 64), (1, 128))
ours = gpu.Kernel(gpu.cuda.load(gpu.kernel.library()))
rows = gpu.check_scan(ours)
gpu.show("numbers", rows)
assert all(row["ok"] for row in rows) and len(rows) == 3
gpu.mamba2_scan.register_kernel("cpu")(ours)
net = gpu.BSMamba2.untrained("tiny").eval()
ours.states, gpu_network.CHECK_SECONDS = False, 0.05
rows = gpu.check_network(net, gpu_network.Truth(net, ours))
gpu.show("numbers", rows)
assert [row["ok"] for row in rows] == [True] * 3 and not ours.stands_aside
gpu_scans.AXES, gpu_scans.HEADS = {"time": (2, 70)}, 2
rows = gpu.time_scans(ours, {"copy bytes/s": 1e9, "bf16 operations/s": 1e9})
gpu.show("scan", rows)
assert [row["ok"] for row in rows if "ms" in row] == [True] * 4
"""
COMPILED = """
gpu_compiled.AXES, gpu_compiled.HEADS = {"time": (2, 70)}, 2
task = {"what": "compile", "device": "cpu", "most": {"copy bytes/s": 1e9, "bf16 operations/s": 1e9},
        "library": gpu.kernel.library(), "preset": "tiny", "compiler": "aot_eager", "seconds": 0.05}
rows = list(gpu_compiled.rows(task))
gpu.show("compiled", rows)
assert all(row["ok"] and row["ms"] > 0 for row in rows) and len(rows) == 3
"""


@pytest.mark.skipif(kernel.library() is None, reason="the kernels are not installed")
@pytest.mark.parametrize("part", [KERNELS, COMPILED], ids=["kernels", "compiled"])
def test_the_kernels_run_through_pytorch(fake_driver, part):
    known = {**os.environ, "LD_LIBRARY_PATH": str(fake_driver)}
    command = [sys.executable, "-c", PARTS_ALONE + part]
    done = subprocess.run(command, capture_output=True, text=True, env=known, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_gpu_it_says_so():
    command = [sys.executable, "benchmarks/gpu.py"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=hidden)
    assert (done.returncode, done.stderr) == (
        2,
        "benchmarks/gpu.py needs an NVIDIA GPU that PyTorch can use\n",
    )


@pytest.fixture
def gpu(monkeypatch):
    """The benchmark's parts, with the CPU in the GPU's place and sizes that it can do."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu_chip
    import gpu_engines
    import gpu_network
    import gpu_scans
    import gpu_song

    # The folder of these tests is called gpu too.
    found = importlib.util.spec_from_file_location("benchmark", ROOT / "benchmarks/gpu.py")
    main = importlib.util.module_from_spec(found)
    found.loader.exec_module(main)
    monkeypatch.setattr(gpu_chip, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_network, "SHAPES", ((0.1, 1), (0.05, 2)))
    monkeypatch.setattr(gpu_network, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(gpu_network, "CHUNK_SECONDS", 0.1)
    monkeypatch.setattr(gpu_song, "SONG_SECONDS", 0.2)
    monkeypatch.setattr(gpu_song, "CHUNK_SECONDS", 0.1)
    monkeypatch.setattr(gpu_song, "BATCHES", (2,))
    monkeypatch.setattr(gpu_engines, "SHAPES", ((0.1, 1),))
    monkeypatch.setattr(gpu_scans, "AXES", {"time axis": (2, 70)})
    monkeypatch.setattr(gpu_scans, "LENGTHS", ((2, 3),))
    for part in (gpu_network, gpu_scans):
        monkeypatch.setattr(part, "mamba_ssm", lambda: "not installed (mamba_ssm)")
    return SimpleNamespace(
        main=main, chip=gpu_chip, engines=gpu_engines, network=gpu_network, scans=gpu_scans,
        song=gpu_song,
    )  # fmt: skip


class PlainKernel:
    """In our kernel's place; on the CPU the operator runs as PyTorch's anyway."""

    states, stands_aside = True, False

    def __call__(self, *inputs):
        from bsmamba2_network.scan import scan

        return scan(*inputs)


@pytest.fixture
def bench(gpu):
    net, ours = BSMamba2.untrained("tiny"), PlainKernel()
    truth = gpu.network.Truth(net, ours)
    return gpu.network.Bench(net, ours, gpu.chip.Clock(9), MOST, truth)


@pytest.fixture
def eager_graphs(gpu, monkeypatch):
    """A CUDA graph's place is taken by the run that it would replay."""

    def captured(net, waveform, kind):
        return partial(gpu.network.separate, net, waveform, kind)

    monkeypatch.setattr(gpu.network, "captured", captured)


@pytest.fixture
def measured(gpu, bench, eager_graphs, monkeypatch, tmp_path):
    """``measured(**options)``: a report of every section; other processes only name themselves."""
    import gpu_rows

    def named(script, task, seconds, **environment):
        return [{"what": task["what"], "note": script}]

    monkeypatch.setattr(gpu_rows, "run_apart", named)
    monkeypatch.setattr(gpu.engines, "lacking_onnxruntime", lambda: "")

    def measure(**options):
        report = gpu.main.Report(bench.clock, tmp_path / "gpu.json")
        engines = gpu.engines.Engines("tiny", tmp_path, None, tmp_path / "kernels.so", "cpu")
        gpu.main.measure(report, bench.clock, bench.net, bench.ours, engines, [], **options)
        assert json.loads((tmp_path / "gpu.json").read_text()) == report.found
        return report

    return measure


def test_every_section_is_there_most_wanted_first_and_none_is_wrong(measured):
    report = measured()
    assert list(report.found) == [
        "numbers of the scan", "numbers of the network", "ceilings", "song", "network",
        "network without our kernel", "scan", "ONNX Runtime", "TensorRT", "torch.compile",
    ]  # fmt: skip
    assert not report.wrong()
    timed = ("song", "network", "network without our kernel", "scan")
    lacking = [row for title in timed for row in report.found[title] if "ms" not in row]
    assert all(row["note"] == "not installed (mamba_ssm)" for row in lacking)
    assert len(report.found["network"]) == 7  # two shapes by graph and without, three more of one


def test_numbers_alone_take_no_times(measured):
    assert list(measured(numbers_only=True).found) == [
        "numbers of the scan", "numbers of the network"
    ]  # fmt: skip


class FaultyKernel(PlainKernel):
    def __init__(self, fault):
        self.fault = fault

    def __call__(self, *inputs):
        y, *states = super().__call__(*inputs)
        return (y * self.fault, *states)


@pytest.mark.parametrize("fault", [math.nan, 0.0])
def test_a_wrong_kernel_is_wrong_and_not_timed(gpu, fault):
    report = gpu.main.Report(gpu.chip.Clock(1), None)
    report.section("scan", lambda: gpu.scans.time_scans(FaultyKernel(fault), MOST))
    row = report.found["scan"][0]
    assert (row["ok"], row["note"], "ms" in row) == (False, "wrong, so not timed", False)
    assert report.wrong()


@pytest.mark.parametrize("fault", [math.nan, 0.0])
def test_a_wrong_network_is_wrong_and_not_timed(bench, fault):
    stems = bench.truth.stems(0.1)
    row = bench.row(
        "faulty", "bf16", 0.1, 2, lambda noise: lambda: fault * stems.expand(2, *stems.shape)
    )
    assert (row["ok"], row["note"], "ms" in row) == (False, "wrong, so not timed", False)


def test_a_section_that_fails_costs_no_other_and_is_not_right(gpu):
    def fails():
        raise RuntimeError("an illegal memory access")

    report = gpu.main.Report(gpu.chip.Clock(1), None)
    report.section("numbers of the scan", fails)
    report.section("song", lambda: [{"what": "a song", "ok": True}])
    assert (
        report.found["numbers of the scan"][0]["note"] == "RuntimeError: an illegal memory access"
    )
    assert report.found["song"][0]["ok"]
    assert report.wrong()


def test_a_section_without_time_says_so(gpu):
    report = gpu.main.Report(gpu.chip.Clock(0), None)
    report.section("song", list, 60)
    assert report.found["song"] == [{"what": "song", "note": "no time left"}]
    assert not report.wrong()


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (RuntimeError("capture failed"), "RuntimeError: capture failed"),
    ],
)
def test_a_row_that_fails_says_why(bench, error, note):
    def make(noise):
        raise error

    assert bench.row("our kernel", "bf16", 0.1, 1, make)["note"] == note


def test_where_no_graph_can_be_captured_the_other_rows_are_there(gpu, bench, monkeypatch):
    def captured(*given):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(gpu.network, "captured", captured)
    rows = gpu.network.time_network(bench)
    assert rows[0]["note"] == "RuntimeError: operation not permitted when stream is capturing"
    assert "ms" in rows[1]


def test_a_mode_of_the_scans_ends_where_it_was_begun(gpu, bench):
    from bsmamba2_network import mamba_kernels

    take = mamba_kernels.take
    with gpu.scans.without(bench.ours, mamba_ssm=True):
        with gpu.scans.without(bench.ours):
            assert mamba_kernels.take is not take
        assert (bench.ours.stands_aside, mamba_kernels.take) == (True, take)
    assert (bench.ours.stands_aside, mamba_kernels.take) == (False, take)


def test_the_operations_are_those_that_pytorch_counts(gpu):
    net = BSMamba2.untrained("tiny")
    mixture = torch.randn(1, 2, 1 + 44100 // net.config.hop, net.config.bins, 2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.separate_spectrum(mixture)
    counted = sum(
        count for name, count in counter.get_flop_counts()["Global"].items()
        if name in (torch.ops.aten.mm, torch.ops.aten.addmm)
    )  # fmt: skip
    assert gpu.network.product_operations(net.config, 1) == counted


def test_the_floor_of_a_scan_is_of_its_shapes(gpu):
    moved, operations = gpu.scans.scan_floor(62, 801, torch.bfloat16)
    assert 3.3e8 < moved < 3.5e8
    assert 1e10 < operations < 1e11
    assert gpu.network.product_operations(Config(), 8) == pytest.approx(2e12, rel=0.3)


def test_a_training_step_has_gradients_of_the_waveforms_loss(gpu, bench):
    assert gpu.network.time_training(bench, "step")["ok"]
    loss = gpu.network.step(bench.net, bench.truth.noise(0.1))
    assert 0 < loss < 1
    assert all(v.grad.abs().sum() > 0 for v in bench.net.parameters() if v.grad is not None)


def test_the_whole_song_is_separated_in_its_order(gpu, bench):
    song, stems = torch.randn(2, 50), torch.zeros(2, 50)
    static = torch.zeros(2, 2, 10)
    gpu.song.separate_song(song, stems, 10, static, lambda: 0.5 * static[:, None])
    torch.testing.assert_close(stems, 0.5 * song)
