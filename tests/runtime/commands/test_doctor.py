"""What the doctor says of machines in every state."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import soundfile
from click.testing import CliRunner

from bsmamba2 import MissingExtra, ModelError, cli
from bsmamba2.commands import diagnosis as doctor
from bsmamba2.devices import kernel, nvidia
from bsmamba2.devices.nvidia import Card, Driver
from bsmamba2.engines import ort_session
from bsmamba2.engines.ort_session import PROVIDERS, import_onnxruntime
from bsmamba2.models import registry


@pytest.fixture
def examine():
    """``examine()["cpu"]``: the findings by part; ``examine.status`` is the command's."""

    def run():
        result = CliRunner().invoke(cli.main, ["doctor", "--json"])
        report = json.loads(result.stdout)
        run.status = result.exit_code
        assert report["works"] == (run.status == 0)
        return {part["part"]: part for part in report["parts"]}

    return run


def test_this_machine_separates_and_its_processor_agrees_with_plain_operators(examine):
    found = examine()
    assert (examine.status, found["cpu"]["state"]) == (0, "works")
    assert "agrees with plain operators to " in found["cpu"]["found"]
    assert all(part["found"] for part in found.values())


def test_the_table_has_every_part_and_every_mend(examine):
    found = examine()
    page = " ".join(CliRunner().invoke(cli.main, ["doctor"]).stdout.split())
    for part in found.values():
        assert part["part"] in page
        assert part["mend"].split(" ")[0] in page


def test_what_is_not_installed_is_told_with_its_use_and_its_line(examine, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: "1.0" if package == "torch" else None)
    found = examine()
    assert found["av"]["found"] == "not installed: reads M4A, AAC, MP4 and WMA"
    assert found["av"]["mend"] == 'pip install "bsmamba2[av]"'
    assert found["torch"]["found"] == "1.0, of bsmamba2[network]: the network in PyTorch"


@pytest.mark.parametrize(
    ("sentence", "mend"),
    [
        ("none can be loaded; run: pip install X", "pip install X"),
        (
            "both are installed and overwrite each other; run: pip uninstall -y Y",
            "pip uninstall -y Y",
        ),
    ],
)
def test_without_one_onnxruntime_nothing_works_and_the_line_says_why(
    examine, monkeypatch, sentence, mend
):
    def refuse():
        raise MissingExtra(sentence)

    monkeypatch.setattr(doctor, "import_onnxruntime", refuse)
    found = examine()["ONNX Runtime"]
    assert (examine.status, found["state"], found["mend"]) == (2, "broken", mend)


def test_a_kernel_is_told_with_its_instructions(examine, monkeypatch):
    if not kernel.library():
        pytest.skip("the kernel is not installed")
    assert examine()["kernel"]["found"] in ("avx512", "avx2", "portable")
    monkeypatch.setenv("BSMAMBA2_ISA", "portable")
    assert kernel.instruction_set() is not None


def test_a_kernel_that_was_not_built_is_absent_with_its_mend(examine, monkeypatch):
    monkeypatch.setattr(kernel, "library", lambda: None)
    found = examine()["kernel"]
    assert (found["state"], "C++17 compiler" in found["mend"]) == ("absent", True)


def test_a_kernel_that_was_switched_off_is_absent(examine, monkeypatch):
    monkeypatch.setenv("BSMAMBA2_KERNEL", "off")
    assert examine()["kernel"]["mend"] == "unset BSMAMBA2_KERNEL"


def test_a_kernel_that_cannot_be_loaded_is_broken(examine, monkeypatch, tmp_path):
    (tmp_path / "kernel.so").write_text("no library")
    for module in (kernel, ort_session):
        monkeypatch.setattr(module, "library", lambda: tmp_path / "kernel.so")
    found = examine()
    assert (found["kernel"]["state"], found["cpu"]["state"]) == ("broken", "broken")
    assert "BSMAMBA2_KERNEL=off" in found["cpu"]["mend"]


def test_every_card_is_told_and_what_its_software_lacks(examine, monkeypatch):
    cards = (Card("Fast Card", (9, 0), 80 << 30), Card("Slow Card", (8, 6), 8 << 30))
    monkeypatch.setattr(nvidia, "driver", lambda: Driver(cards, (13, 0), "580.65.06"))
    found = examine()
    for name in ("cuda:0", "cuda:1"):
        assert found[name]["state"] == "absent"
        assert found[name]["mend"].endswith('pip install "bsmamba2[gpu]"')


@pytest.mark.parametrize("answer", ["an error", "wrong"])
def test_a_card_that_fails_or_computes_wrongly_is_broken(examine, monkeypatch, answer):
    def engine(device, kernel=True):
        if device == "cpu":
            return right("cpu", kernel)
        if answer == "wrong":
            return 1.01 * right("cpu", kernel)
        raise ModelError("out of memory: close something")

    right = doctor._answer
    cards = (Card("Fast Card", (9, 0), 80 << 30),)
    ort = import_onnxruntime()
    monkeypatch.setattr(nvidia, "driver", lambda: Driver(cards, (13, 0), "580.65.06"))
    monkeypatch.setattr(ort, "get_available_providers", lambda: [PROVIDERS["cuda"]])
    monkeypatch.setattr(doctor, "_answer", engine)
    found = examine()["cuda:0"]
    assert (examine.status, found["state"]) == (2, "broken")
    assert found["found"].startswith("Fast Card, compute 9.0, driver 580.65.06; it ")


def test_formats_that_are_missing_are_told(examine, monkeypatch):
    some = {"WAV": "", "FLAC": ""}
    monkeypatch.setattr(soundfile, "available_formats", lambda: some)
    found = examine()["audio files"]
    assert "without RF64, W64, AIFF, OGG, MP3" in found["found"]
    assert found["mend"] == "pip install -U soundfile"


def test_an_extra_that_is_missing_answers_with_its_line(examine, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    assert examine()["pedalboard"]["mend"] == 'pip install "bsmamba2[pedalboard]"'
    assert examine.status == 0


def test_a_cache_that_cannot_be_written_is_broken(examine, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "file" / "cache"))
    found = examine()["cache"]
    assert (found["state"], "set BSMAMBA2_CACHE" in found["mend"]) == ("broken", True)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_cache_that_nobody_may_look_into_has_no_model(monkeypatch, tmp_path):
    (tmp_path / "models").touch()
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))
    assert not any(model.is_fetched for model in registry.PUBLISHED)


def test_onnxruntime_reports_to_nobody(tmp_path):
    asked = {"CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    kept = {name: value for name, value in os.environ.items() if name not in asked}
    environment = kept | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "from bsmamba2.commands import diagnosis; print(*[f.part for f in diagnosis.examine()])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "cpu" in done.stdout.split()
    assert not list(tmp_path.rglob("*onnxruntime*"))
