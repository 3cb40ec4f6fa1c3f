"""The engines of ``python -m benchmarks.gpu``: ONNX Runtime on the CPU, a mock TensorRT."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from bsmamba2.audio import fourier
from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import CPU
from bsmamba2.engines import ort_session
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import check_input
from bsmamba2_export import engine_builder
from bsmamba2_network import BSMamba2
from support.traces import shared_traces  # noqa: F401 - used by every test that traces

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))
from benchmarks.gpu import chip, engine, engines, graphs, rows  # noqa: E402 - needs the path

PRESET = "tiny"
Stems = Callable[[float], Audio]
MakeTask = Callable[..., rows.Task]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chip, "DEVICE", "cpu")


@pytest.fixture(scope="session")
def stems() -> Stems:
    """``stems(seconds)``: the network's stems of the benchmark's noise."""
    net = BSMamba2.untrained(PRESET)

    def separate(seconds: float) -> Audio:
        noise = torch.from_numpy(check_input(0, 2, int(seconds * 44100)))
        with torch.inference_mode():
            separated: Audio = net(noise[None])[0].numpy()
        return separated

    return separate


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, stems: Stems) -> Path:
    """The files that the processes read: weights, and stems of one second and of the chunk."""
    folder = tmp_path_factory.mktemp("benchmark")
    BSMamba2.untrained(PRESET).save(folder / "weights.safetensors")
    for seconds in (1, 4):
        np.save(folder / f"stems-{seconds}.npy", stems(seconds))
    return folder


@pytest.fixture(scope="session")
def graph_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs without weights, some in fp16, which a CPU can run."""
    folder = tmp_path_factory.mktemp("graphs")
    forms = (("portable", "fp16"), ("portable", "bf16"), ("ort", "fp32"))
    graphs.write_graphs(folder, PRESET, forms)
    return folder


@pytest.fixture
def subjects(folder: Path) -> engines.Engines:
    return engines.Engines(PRESET, folder, None, Path(), "cpu", song_seconds=5)


@pytest.fixture
def make_task(subjects: engines.Engines, request: pytest.FixtureRequest) -> MakeTask:
    """``make_task(precision, io, scan, **changes)``: the task of a form's process."""

    def make(precision: str, io: str, scan: str, **changes: Any) -> rows.Task:
        form = engines.Form(precision, io, scan, "off")
        file = form.file(PRESET, None)
        file = file or form.file(PRESET, request.getfixturevalue("graph_folder"))
        task = subjects.task("engine", file=str(file), kernel=True, shapes=[[1, 2]], library="")
        return task | changes

    return make


FORMS = [
    ("fp32", "waveform", "plain operators"),
    ("fp32", "spectrum", "plain operators"),
    ("fp32", "waveform", "target ort"),
    ("fp32", "spectrum", "target ort"),
]


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_onnx_runtime_is_checked_then_timed(
    make_task: MakeTask, form: tuple[str, str, str]
) -> None:
    check, shape = engine.measure(make_task(*form))
    assert check["ok"]
    assert check["dB"] >= 90
    assert shape["ok"]
    assert shape["ms"] > 0
    assert shape["chunks"] == "1 s x 2"


def test_a_song_is_separated_in_chunks(make_task: MakeTask) -> None:
    *_, song = engine.measure(make_task(*FORMS[0], shapes=[], song_seconds=5))
    assert song["what"] == "song of 5 s, engine"
    assert song["dB"] >= 90
    assert song["ms"] > 0


def test_an_engine_that_disagrees_is_reported_and_not_timed(
    make_task: MakeTask, tmp_path: Path, stems: Stems
) -> None:
    for seconds in (1, 4):
        np.save(tmp_path / f"stems-{seconds}.npy", -stems(seconds))
    task = make_task(*FORMS[0], expected=str(tmp_path), song_seconds=5)
    measured = list(engine.measure(task))
    assert [row["ok"] for row in measured] == [False] * 3
    assert not any("ms" in row for row in measured)


@pytest.mark.parametrize("expected", [None, np.ones(4, np.float32)])
def test_output_that_is_not_finite_is_wrong(expected: Audio | None) -> None:
    got = np.ones(4, np.float32)
    assert engine.compare(expected, got, 35)["ok"]
    got[2] = np.nan
    assert not engine.compare(expected, got, 35)["ok"]


def test_the_note_says_why_an_engine_cannot_run(make_task: MakeTask) -> None:
    (row,) = engine.measure(make_task("bf16", "waveform", "our kernel"))
    assert "computes in bf16, which ONNX Runtime cannot do on a CPU" in row["note"]


def test_a_warning_of_the_runtime_becomes_a_note_once() -> None:
    warnings = engine.Warnings()
    logging.getLogger("bsmamba2").warning("CUDA graphs are not used")
    assert warnings.drain() == {"note": "CUDA graphs are not used"}
    assert warnings.drain() == {}


@pytest.mark.usefixtures("card")
def test_memory_is_the_decrease_of_the_cards_free_memory() -> None:
    memory = engine.Memory("cuda")  # the mock card loses a gigabyte at each query
    assert [memory.used()["GB"] for _ in range(2)] == [1, 2]


@pytest.mark.usefixtures("card")
def test_the_runtime_runs_a_tensorrt_engine(write: Callable[..., Path]) -> None:
    task = {"what": "voice.engine", "device": "tensorrt", "engine": str(write()), "expected": ""}
    check, *shapes = engine.measure(task | {"shapes": [[0.5, 1], [0.5, 2], [8, 1]]})
    assert check["ok"]
    assert [row["ok"] for row in shapes[:2]] == [True, True]
    assert all(row["GB"] >= 1 for row in shapes[:2])
    assert "must have up to 2 x 101 frames" in shapes[2]["note"]


@pytest.mark.usefixtures("card")
def test_building_is_not_counted_as_loading_time_or_memory(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0]

    def build(task: rows.Task) -> Path:
        engine.Memory("cuda").used()  # the mock card loses a gigabyte at each query
        now[0] += 60
        return write()

    monkeypatch.setattr(engine, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(engine, "build", build)
    task = {"what": "engine", "device": "tensorrt", "backend": "tensorrt", "expected": ""}
    check, shape = engine.measure(task | {"shapes": [[0.5, 1]]})
    assert (check["ok"], check["build s"], check["load s"], shape["GB"]) == (True, 60, 0, 1)


@pytest.mark.parametrize("io", ["spectrum", "waveform"])
def test_an_engine_is_built_from_the_graph_with_its_weights(
    make_task: MakeTask,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    io: str,
) -> None:
    received: dict[str, Any] = {}

    def build_engine(*_: Path, report: Callable[[str], None], **options: Any) -> None:
        received.update(options)
        report("building")

    monkeypatch.setattr(engine_builder, "build_engine", build_engine)
    options = {"backend": "tensorrt", "plugin": True, "batch": 4, "seconds": 8}
    output = engine.build(make_task("bf16", io, "our kernel", **options))
    assert received == options | {"overwrite": True}
    assert "building\n" in capsys.readouterr().err
    model = onnx.load(output.with_suffix(".onnx"))
    assert not any(value.external_data for value in model.graph.initializer)
    onnx.checker.check_model(model)


# ---- Graphs


@pytest.mark.parametrize("io", ["spectrum", "waveform"])
def test_a_narrow_graph_takes_float32_weights_and_rounds_them(
    graph_folder: Path, folder: Path, stems: Stems, io: str
) -> None:
    from bsmamba2.formats.checkpoint import read_checkpoint

    file = read_onnx(graph_folder / f"{PRESET}-portable-fp16-{io}.onnx")
    weights = read_checkpoint(folder / "weights.safetensors").tensors
    matrices = fourier.matrices(file.manifest.n_fft, file.manifest.hop)
    ort_engine = OrtEngine(file, CPU, {**weights, **matrices})
    assert 45 < snr_db(stems(1), ort_engine.run(check_input(0, 2, 44100))) < 90


@pytest.mark.parametrize("io", ["spectrum", "waveform"])
def test_the_bf16_graph_differs_from_the_fp16_graph_only_in_its_type(
    graph_folder: Path, io: str
) -> None:
    nodes = {}
    for precision in ("fp16", "bf16"):
        path = graph_folder / f"{PRESET}-portable-{precision}-{io}.onnx"
        graph = onnx.load(path, load_external_data=False).graph
        nodes[precision] = [(node.op_type, *node.input) for node in graph.node]
    expected = [tuple(v.replace("fp16", "bf16") for v in node) for node in nodes["fp16"]]
    assert nodes["bf16"] == expected


# ---- Forms and processes


def test_every_form_has_a_graph_that_is_shipped_or_written_by_the_command() -> None:
    shipped, written = set(), set(graphs.FORMS)
    for form in engines.FORMS:
        target = "ort" if form.scan == "target ort" else "portable"
        if (target, form.precision) == ("portable", "fp32"):
            file = form.file("paper", None)
            shipped.add(file is not None and file.exists())
        else:
            assert (target, form.precision) in written
    assert shipped == {True}


def test_the_note_of_a_missing_graph_names_the_command_that_writes_it(
    subjects: engines.Engines,
) -> None:
    (row,) = subjects.onnxruntime(engines.FORMS[0], 60)
    assert row["note"].startswith("python -m benchmarks.gpu.graphs FOLDER")


def test_the_rows_of_a_process_are_returned(subjects: engines.Engines) -> None:
    form = engines.Form("fp32", "waveform", "plain operators", "on", ((1, 1),))
    check, shape = subjects.onnxruntime(form, 300)
    assert (check["ok"], shape["ok"], shape["graph"]) == (True, True, "on")


def test_a_process_that_crashes_becomes_a_row() -> None:
    (row,) = rows.run_process(engines.ENGINE, {"what": "engine"}, 300)
    assert row["what"] == "engine"
    assert row["note"] == "ended with 1: KeyError: 'device'"


HANGS = """
import sys, time
print('row: {"what": "a row"}', flush=True)
print("building", file=sys.stderr, flush=True)
time.sleep(600)
"""


def test_a_process_that_hangs_is_stopped_and_its_output_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(rows, "MIN_SECONDS", 0)
    got = rows.run_process("hangs", {"what": "engine"}, 10)
    assert got == [{"what": "a row"}, {"what": "engine", "note": "stopped after 10 s"}]
    assert capsys.readouterr().err == "building\n"


def test_a_process_without_output_is_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rows, "MIN_SECONDS", 0)
    got = rows.run_process(engines.ENGINE, {"what": "engine"}, 0.01)
    assert got == [{"what": "engine", "note": "stopped after 0 s"}]
    assert capsys.readouterr().err == ""


def test_no_process_is_started_without_enough_time() -> None:
    got = rows.run_process(engines.ENGINE, {"what": "engine"}, 5)
    assert got == [{"what": "engine", "note": "no time left"}]


def test_rows_are_found_among_the_output_of_libraries() -> None:
    printed = f"[TRT] hello\n{rows.MARK}{json.dumps({'what': 'a', 'dB': -np.inf})}\n{{}}\n"
    assert rows.parse_rows(printed.encode()) == [{"what": "a", "dB": -np.inf}]
    assert rows.parse_rows(None) == []


def test_an_engine_is_measured_without_torch() -> None:
    code = f"import sys, {engines.ENGINE}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "bsmamba2.audio.stft" in done.stdout.split()
    assert "torch" not in done.stdout.split()


def test_the_note_says_that_onnx_runtime_has_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    package = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(ort_session, "import_onnxruntime", lambda: package)
    assert engines.onnxruntime_missing() == "not installed (this onnxruntime has no CUDA)"


def test_the_note_says_that_tensorrt_is_not_installed(
    subjects: engines.Engines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_process(module: str, task: rows.Task, seconds: float) -> rows.Rows:
        return [{"what": task["engine"]}]

    monkeypatch.setattr(engines, "TENSORRTS", {"tensorrt": ("no_such_package",)})
    monkeypatch.setattr(rows, "run_process", run_process)
    path = tmp_path / "a.engine"
    measured = engines.time_tensorrt(subjects, [path], chip.Clock(1))
    assert measured == [{"what": str(path)}, {"what": "tensorrt", "note": "not installed"}]


@pytest.mark.parametrize(("left_s", "build_s"), [(600, 180), (100, 60)])
def test_a_build_leaves_time_for_later_sections(
    subjects: engines.Engines, monkeypatch: pytest.MonkeyPatch, left_s: float, build_s: float
) -> None:
    limits = []

    def tensorrt(
        _: engines.Engines, backend: str, precision: str, plugin: bool, seconds: float
    ) -> rows.Rows:
        limits.append(seconds)
        return []

    monkeypatch.setattr(engines, "TENSORRTS", {"tensorrt": ("onnx",)})
    monkeypatch.setattr(engines.Engines, "tensorrt", tensorrt)
    clock = chip.Clock(1)
    monkeypatch.setattr(clock, "left_s", lambda: left_s)
    engines.time_tensorrt(subjects, [], clock)
    assert limits == [build_s] * 3
