"""The benchmark's engines: ONNX Runtime on the CPU, a TensorRT that is made up, real processes."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from bsmamba2.audio import fourier
from bsmamba2.audio.snr import snr_db
from bsmamba2.engines import ort_session
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import check_input
from bsmamba2_network import BSMamba2

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PRESET = "tiny"


@pytest.fixture
def part(monkeypatch):
    """``part("gpu_engine")``: a module of the benchmark, with the CPU in the GPU's place."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(importlib.import_module("gpu_chip"), "DEVICE", "cpu")
    return importlib.import_module


@pytest.fixture(scope="session")
def stems():
    """``stems(seconds)``: what the network makes of the benchmark's noise."""
    net = BSMamba2.untrained(PRESET)

    def of(seconds):
        noise = torch.from_numpy(check_input(0, 2, int(seconds * 44100)))
        with torch.inference_mode():
            return net(noise[None])[0].numpy()

    return of


@pytest.fixture(scope="session")
def folder(tmp_path_factory, stems):
    """What the processes read: weights, and stems of a second and of the chunk."""
    folder = tmp_path_factory.mktemp("benchmark")
    BSMamba2.untrained(PRESET).save(folder / "weights.safetensors")
    for seconds in (1, 4):
        np.save(folder / f"stems-{seconds}.npy", stems(seconds))
    return folder


@pytest.fixture(scope="session")
def graphs(tmp_path_factory):
    """Graphs without weights, in fp16 too, which a CPU runs."""
    sys.path.insert(0, str(BENCHMARKS))
    made = tmp_path_factory.mktemp("graphs")
    module = importlib.import_module("gpu_graphs")
    sys.path.remove(str(BENCHMARKS))
    module.write_graphs(made, PRESET, (("portable", "fp16"), ("portable", "bf16"), ("ort", "fp32")))
    return made


@pytest.fixture
def engines(part, folder):
    return part("gpu_engines").Engines(PRESET, folder, None, Path(), "cpu", song_seconds=5)


@pytest.fixture
def task(engines, part, request):
    """``task(form, **changes)``: what the process of a form is asked to do."""

    def of(*form, **changes):
        asked = part("gpu_engines").Form(*form, "off")
        file = asked.file(PRESET, None)
        file = file or asked.file(PRESET, request.getfixturevalue("graphs"))
        known = engines.task("engine", file=str(file), kernel=True, shapes=[[1, 2]], library="")
        return known | changes

    return of


FORMS = [
    ("fp32", "waveform", "plain operators"),
    ("fp32", "spectrum", "plain operators"),
    ("fp32", "waveform", "target ort"),
    ("fp32", "spectrum", "target ort"),
]


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_onnx_runtime_is_checked_then_timed(task, part, form):
    check, shape = part("gpu_engine").rows(task(*form))
    assert check["ok"]
    assert check["dB"] >= 90
    assert shape["ok"]
    assert shape["ms"] > 0
    assert shape["chunks"] == "1 s x 2"


def test_a_song_goes_through_the_separator(task, part):
    *_, song = part("gpu_engine").rows(task(*FORMS[0], shapes=[], song_seconds=5))
    assert song["what"] == "song of 5 s, engine"
    assert song["dB"] >= 90
    assert song["ms"] > 0


def test_an_engine_that_does_not_agree_is_wrong_and_not_timed(task, part, tmp_path, stems):
    for seconds in (1, 4):
        np.save(tmp_path / f"stems-{seconds}.npy", -stems(seconds))
    rows = list(part("gpu_engine").rows(task(*FORMS[0], truth=str(tmp_path), song_seconds=5)))
    assert [row["ok"] for row in rows] == [False] * 3
    assert not any("ms" in row for row in rows)


@pytest.mark.parametrize("wanted", [None, np.ones(4, np.float32)])
def test_what_is_not_finite_is_wrong(part, wanted):
    came = np.ones(4, np.float32)
    assert part("gpu_engine").judged(wanted, came, 35)["ok"]
    came[2] = np.nan
    assert not part("gpu_engine").judged(wanted, came, 35)["ok"]


def test_what_an_engine_cannot_do_is_its_note(task, part):
    (row,) = part("gpu_engine").rows(task("bf16", "waveform", "our kernel"))
    assert "computes in bf16, which CPUs have no products for" in row["note"]


def test_what_the_runtime_warns_of_is_a_note(part):
    import logging

    warnings = part("gpu_engine").Warnings()
    logging.getLogger("bsmamba2").warning("CUDA graphs are not used")
    assert warnings.taken() == {"note": "CUDA graphs are not used"}
    assert warnings.taken() == {}


def test_the_memory_is_what_the_card_has_less(part, card):
    memory = part("gpu_engine").Memory("cuda")  # of a card that loses a gigabyte each time
    assert [memory.taken()["GB"] for _ in range(2)] == [1, 2]


def test_an_engine_of_tensorrt_is_run_by_the_runtime(part, card, write):
    task = {"what": "voice.engine", "device": "tensorrt", "engine": str(write()), "truth": ""}
    check, *shapes = part("gpu_engine").rows(task | {"shapes": [[0.5, 1], [0.5, 2], [8, 1]]})
    assert check["ok"]
    assert [row["ok"] for row in shapes[:2]] == [True, True]
    assert all(row["GB"] >= 1 for row in shapes[:2])
    assert "takes up to 2 x 101 frames" in shapes[2]["note"]


def test_what_building_takes_is_not_of_loading_nor_of_its_memory(part, card, write, monkeypatch):
    module, now = part("gpu_engine"), [0]

    def build(task):
        module.Memory("cuda").taken()  # of a card that loses a gigabyte each time
        now[0] += 60
        return write()

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(module, "build", build)
    task = {"what": "engine", "device": "tensorrt", "backend": "tensorrt", "truth": ""}
    check, shape = module.rows(task | {"shapes": [[0.5, 1]]})
    assert (check["ok"], check["build s"], check["load s"], shape["GB"]) == (True, 60, 0, 1)


def test_the_engine_is_built_of_the_poured_graph(task, part, monkeypatch, capsys):
    from bsmamba2_export import engine_builder

    asked = {}

    def build_engine(*given, report, **more):
        asked.update(more)
        report("building")

    monkeypatch.setattr(engine_builder, "build_engine", build_engine)
    build = {"backend": "tensorrt", "plugin": True, "batch": 4, "seconds": 8}
    output = part("gpu_engine").build(task("bf16", "spectrum", "our kernel", **build))
    assert asked == build | {"overwrite": True}
    assert "building\n" in capsys.readouterr().err
    model = onnx.load(output.with_suffix(".onnx"))
    assert not any(value.external_data for value in model.graph.initializer)
    onnx.checker.check_model(model)


# ---- Graphs


@pytest.mark.parametrize("io", ["spectrum", "waveform"])
def test_a_narrow_graph_takes_float32_and_rounds(graphs, folder, stems, io):
    from bsmamba2.formats.checkpoint import read_checkpoint

    file = read_onnx(graphs / f"{PRESET}-portable-fp16-{io}.onnx")
    weights = read_checkpoint(folder / "weights.safetensors").tensors
    matrices = fourier.matrices(file.manifest.n_fft, file.manifest.hop)
    engine = OrtEngine(file, "cpu", {**weights, **matrices})
    assert 45 < snr_db(stems(1), engine.run(check_input(0, 2, 44100))) < 90


@pytest.mark.parametrize("io", ["spectrum", "waveform"])
def test_bf16_is_fp16_but_for_its_type(graphs, io):
    kinds = []
    for precision in ("fp16", "bf16"):
        path = graphs / f"{PRESET}-portable-{precision}-{io}.onnx"
        nodes = onnx.load(path, load_external_data=False).graph.node
        kinds.append([(node.op_type, *node.input) for node in nodes])
    assert kinds[1] == [tuple(v.replace("fp16", "bf16") for v in node) for node in kinds[0]]


# ---- Forms and processes


def test_every_form_has_a_graph_that_is_shipped_or_that_the_command_writes(part):
    shipped, written = set(), set(part("gpu_graphs").FORMS)
    for form in part("gpu_engines").FORMS:
        target = "ort" if form.scan == "target ort" else "portable"
        if (target, form.precision) == ("portable", "fp32"):
            shipped.add(form.file("paper", None).exists())
        else:
            assert (target, form.precision) in written
    assert shipped == {True}


def test_without_its_graph_a_row_says_what_makes_it(part, engines):
    (row,) = engines.onnxruntime(part("gpu_engines").FORMS[0], 60)
    assert row["note"].startswith("python benchmarks/gpu_graphs.py FOLDER")


def test_a_process_gives_its_rows(engines, part):
    form = part("gpu_engines").Form("fp32", "waveform", "plain operators", "on", ((1, 1),))
    check, shape = engines.onnxruntime(form, 300)
    assert (check["ok"], shape["ok"], shape["graph"]) == (True, True, "on")


def test_a_process_that_crashes_is_a_row(part):
    (row,) = part("gpu_rows").run_apart("gpu_engine.py", {"what": "engine"}, 300)
    assert row["what"] == "engine"
    assert row["note"] == "ended with 1: KeyError: 'device'"


HANGS = """
import sys, time
print('row: {"what": "a row"}', flush=True)
print("building", file=sys.stderr, flush=True)
time.sleep(600)
"""


def test_a_process_that_hangs_is_stopped_and_what_it_said_is_kept(
    part, monkeypatch, capsys, tmp_path
):
    module = part("gpu_rows")
    (tmp_path / "hangs.py").write_text(HANGS)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "gpu_rows.py"))
    monkeypatch.setattr(module, "LEAST_SECONDS", 0)
    rows = module.run_apart("hangs.py", {"what": "engine"}, 10)
    assert rows == [{"what": "a row"}, {"what": "engine", "note": "stopped after 10 s"}]
    assert capsys.readouterr().err == "building\n"


def test_a_process_that_says_nothing_is_stopped(part, monkeypatch, capsys):
    monkeypatch.setattr(part("gpu_rows"), "LEAST_SECONDS", 0)
    rows = part("gpu_rows").run_apart("gpu_engine.py", {"what": "engine"}, 0.01)
    assert rows == [{"what": "engine", "note": "stopped after 0 s"}]
    assert capsys.readouterr().err == ""


def test_no_process_is_begun_without_time(part):
    rows = part("gpu_rows").run_apart("gpu_engine.py", {"what": "engine"}, 5)
    assert rows == [{"what": "engine", "note": "no time left"}]


def test_rows_are_found_among_what_libraries_print(part):
    module = part("gpu_rows")
    printed = f"[TRT] hello\n{module.MARK}{json.dumps({'what': 'a', 'dB': -np.inf})}\n{{}}\n"
    assert module.rows_of(printed.encode()) == [{"what": "a", "dB": -np.inf}]
    assert module.rows_of(None) == []


def test_an_engine_is_measured_without_torch():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import gpu_engine; print(*sys.modules)"
    command = [sys.executable, "-c", code, str(BENCHMARKS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "bsmamba2.stft" in done.stdout.split()
    assert "torch" not in done.stdout.split()


def test_an_onnx_runtime_without_cuda_is_a_note(part, monkeypatch):
    package = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(ort_session, "import_onnxruntime", lambda: package)
    assert part("gpu_engines").lacking_onnxruntime() == (
        "not installed (this onnxruntime has no CUDA)"
    )


def test_a_tensorrt_that_is_not_there_is_a_note(part, engines, monkeypatch, tmp_path):
    module = part("gpu_engines")
    monkeypatch.setattr(module, "TENSORRTS", {"tensorrt": ("no_such_package",)})
    named = lambda script, task, seconds: [task["engine"]]  # noqa: E731
    monkeypatch.setattr(module.gpu_rows, "run_apart", named)
    rows = module.time_tensorrt(engines, [tmp_path / "a.engine"], part("gpu_chip").Clock(1))
    assert rows == [str(tmp_path / "a.engine"), {"what": "tensorrt", "note": "not installed"}]


@pytest.mark.parametrize(("left", "given"), [(600, 180), (100, 60)])
def test_no_build_takes_the_time_of_all_else(part, monkeypatch, left, given):
    module, seconds_given = part("gpu_engines"), []

    def tensorrt(backend, precision, plugin, seconds):
        seconds_given.append(seconds)
        return []

    monkeypatch.setattr(module, "TENSORRTS", {"tensorrt": ("onnx",)})
    clock = SimpleNamespace(left=lambda: left)
    module.time_tensorrt(SimpleNamespace(tensorrt=tensorrt), [], clock)
    assert seconds_given == [given] * 3
