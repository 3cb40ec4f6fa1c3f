"""The diagnosis of machines in every state, and the fix for each fault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from bsmamba2 import MissingExtra, ModelError
from bsmamba2.audio.array import Audio
from bsmamba2.commands import diagnosis
from bsmamba2.commands.diagnosis import ABSENT, BROKEN, WORKS, Finding
from bsmamba2.devices import kernel, nvidia
from bsmamba2.devices.device import CPU, Device
from bsmamba2.devices.nvidia import Card, Driver
from bsmamba2.devices.products import products
from bsmamba2.engines import ort_session
from bsmamba2.engines.ort_import import import_onnxruntime
from bsmamba2.engines.ort_providers import PROVIDERS
from bsmamba2.installation import install_command
from bsmamba2.models import registry

CARDS = (Card("Fast Card", (9, 0), 80 << 30), Card("Slow Card", (8, 6), 8 << 30))


def examine() -> dict[str, Finding]:
    """The findings by part."""
    return {finding.part: finding for finding in diagnosis.examine()}


def test_this_machine_separates_and_its_processor_agrees_with_plain_operators() -> None:
    findings = examine()
    assert findings["cpu"].state == WORKS
    assert "agrees with plain operators to " in findings["cpu"].found
    assert all(finding.found for finding in findings.values())
    assert not [part for part, finding in findings.items() if finding.state == BROKEN]


def test_every_fault_has_a_fix() -> None:
    assert all(bool(finding.fix) == (finding.state != WORKS) for finding in examine().values())


def test_a_missing_package_is_listed_with_its_use_and_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        diagnosis, "installed_version", lambda name: "1.0" if name == "torch" else None
    )
    findings = examine()
    assert findings["av"].found == "not installed: reads M4A, AAC, MP4 and WMA"
    assert findings["av"].fix == install_command("av")
    assert (findings["pedalboard"].state, findings["onnx"].state) == (ABSENT, ABSENT)
    assert findings["pedalboard"].fix == install_command("pedalboard")
    assert findings["torch"].found == "1.0, from the extra [network]: the network in PyTorch"


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("none can be loaded", "pip install X"),
        ("both are installed and overwrite each other", "pip uninstall -y Y"),
    ],
)
def test_without_exactly_one_onnxruntime_nothing_works_and_the_reason_is_given(
    monkeypatch: pytest.MonkeyPatch, reason: str, fix: str
) -> None:
    def refuse() -> None:
        raise MissingExtra(f"{reason}; run: {fix}")

    monkeypatch.setattr(diagnosis, "import_onnxruntime", refuse)
    findings = examine()
    assert findings["ONNX Runtime"] == Finding("ONNX Runtime", BROKEN, reason, fix)
    assert "cpu" not in findings


@pytest.mark.skipif(kernel.library() is None, reason="the kernel is not installed")
def test_the_products_of_each_speed_are_listed() -> None:
    expected = f"exact: {products('exact')}, fast: {products('fast')}"
    assert examine()["products"] == Finding("products", WORKS, expected)


@pytest.mark.skipif(kernel.library() is None, reason="the kernel is not installed")
def test_products_that_are_wrong_are_listed_and_do_not_break_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = "float32; wrong results, so not used: amx"
    monkeypatch.setattr(diagnosis, "products", lambda speed: wrong)
    found = examine()["products"]
    assert found.state == ABSENT
    assert found.found == "exact: float32, fast: float32; wrong results, so not used: amx"
    assert "report this processor" in found.fix


@pytest.mark.skipif(kernel.library() is None, reason="the kernel is not installed")
def test_a_kernel_is_listed_with_its_instruction_set() -> None:
    assert examine()["kernel"].found in ("avx512", "avx2", "portable")


def test_a_kernel_that_was_not_built_is_absent_and_needs_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "library", lambda: None)
    finding = examine()["kernel"]
    assert finding.state == ABSENT
    assert finding.fix == f"install a C++17 compiler, then: {install_command(force=True)}"


def test_a_kernel_that_was_switched_off_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_KERNEL", "off")
    finding = examine()["kernel"]
    assert (finding.state, finding.fix) == (ABSENT, "unset BSMAMBA2_KERNEL")


@pytest.mark.parametrize("chosen", ["", "avx512"])
def test_a_kernel_that_cannot_be_loaded_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str
) -> None:
    (tmp_path / "kernel.so").write_text("no library")
    for module in (kernel, ort_session):
        monkeypatch.setattr(module, "library", lambda: tmp_path / "kernel.so")
    monkeypatch.setenv("BSMAMBA2_ISA", chosen)
    findings = examine()
    assert (findings["kernel"].state, findings["cpu"].state) == (BROKEN, BROKEN)
    assert findings["kernel"].fix == (
        "unset BSMAMBA2_ISA" if chosen else install_command(force=True)
    )
    assert "BSMAMBA2_KERNEL=off" in findings["cpu"].fix


def test_every_card_is_listed_with_what_is_missing_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: Driver(CARDS, (13, 0), "580.65.06"))
    monkeypatch.setattr(import_onnxruntime(), "get_available_providers", lambda: [PROVIDERS["cpu"]])
    findings = examine()
    for part in ("cuda:0", "cuda:1"):
        assert findings[part].state == ABSENT
        assert findings[part].found == "ONNX Runtime for NVIDIA cards is not installed"
        assert findings[part].fix.endswith(install_command("gpu"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [("an error", "it fails"), ("wrong output", "its output is wrong (40 dB)")],
)
def test_a_card_that_fails_or_computes_wrongly_is_broken(
    monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    plain = diagnosis._small_output

    def small_output(device: Device, kernel: bool = True) -> Audio:
        if device == CPU:
            return plain(CPU, kernel)
        if fault == "wrong output":
            wrong: Audio = 1.01 * plain(CPU, kernel)
            return wrong
        raise ModelError("out of memory: close something")

    ort = import_onnxruntime()
    monkeypatch.setattr(nvidia, "driver", lambda: Driver(CARDS[:1], (13, 0), "580.65.06"))
    monkeypatch.setattr(ort, "get_available_providers", lambda: [PROVIDERS["cuda"]])
    monkeypatch.setattr(diagnosis, "_small_output", small_output)
    finding = examine()["cuda:0"]
    assert finding.state == BROKEN
    assert finding.found == f"Fast Card, compute 9.0, driver 580.65.06; {message}"


def test_missing_audio_formats_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "", "FLAC": ""})
    finding = examine()["audio files"]
    assert "without RF64, W64, AIFF, OGG, MP3" in finding.found
    assert (finding.state, finding.fix) == (ABSENT, "pip install -U soundfile")


def test_a_cache_that_cannot_be_written_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "file" / "cache"))
    finding = examine()["cache"]
    assert (finding.state, "set BSMAMBA2_CACHE" in finding.fix) == (BROKEN, True)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_published_model_is_listed_with_its_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))
    model = registry.PUBLISHED[0]
    findings = examine()
    finding = findings[model.name]
    assert (finding.state, finding.fix) == (ABSENT, registry.how_to_fetch(model))
    assert registry.PUBLISHED[1].name not in findings
    assert findings["catalogue"].found.startswith(f"{len(registry.PUBLISHED)} published models")


def test_a_catalogue_that_is_wrong_is_broken_and_the_rest_is_still_examined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BSMAMBA2_CATALOGUE", str(tmp_path / "missing.json"))
    findings = examine()
    assert findings["catalogue"].state == BROKEN
    assert findings["catalogue"].fix == "correct it, or unset BSMAMBA2_CATALOGUE"
    assert registry.PUBLISHED[0].name in findings


def test_onnxruntime_stores_no_telemetry(tmp_path: Path) -> None:
    removed = {"CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    kept = {name: value for name, value in os.environ.items() if name not in removed}
    environment = kept | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "from bsmamba2.commands import diagnosis; print(*[f.part for f in diagnosis.examine()])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "cpu" in done.stdout.split()
    assert not list(tmp_path.rglob("*onnxruntime*"))
