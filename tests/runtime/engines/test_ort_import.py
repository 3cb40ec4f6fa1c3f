"""The import of ONNX Runtime, and the commands that repair its installation."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bsmamba2 import MissingExtra
from bsmamba2.devices import nvidia
from bsmamba2.engines.ort_import import gpu_install_command, import_onnxruntime
from bsmamba2.installation import install_command

CARD = nvidia.Card("mock", (8, 9), 8 << 30)


@pytest.fixture(autouse=True)
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: None)


def install(monkeypatch: pytest.MonkeyPatch, *distributions: str) -> None:
    """Mocks the list of installed packages, and an ONNX Runtime that cannot be imported."""
    monkeypatch.setattr(
        "bsmamba2.engines.ort_import.installed_folder",
        lambda name: Path("site") if name in distributions else None,
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


def test_without_an_onnxruntime_the_error_contains_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch)
    with pytest.raises(MissingExtra) as caught:
        import_onnxruntime()
    command = install_command("cpu")
    assert str(caught.value) == f"no ONNX Runtime can be loaded; run: {command}"


def test_an_onnxruntime_that_cannot_be_imported_is_reported_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "onnxruntime")
    with pytest.raises(MissingExtra, match=r"no ONNX Runtime can be loaded \(.*onnxruntime.*\)"):
        import_onnxruntime()


def test_two_onnxruntimes_are_an_error_with_the_command_to_reinstall_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(MissingExtra, match="both installed and overwrite each other") as caught:
        import_onnxruntime()
    command = f"pip uninstall -y onnxruntime onnxruntime-gpu && {install_command('cpu')}"
    assert str(caught.value).endswith(f"; run: {command}")


def test_two_onnxruntimes_in_two_folders_do_not_disturb_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For example a machine's own, and another that PYTHONPATH puts in front of it."""
    monkeypatch.setattr("bsmamba2.engines.ort_import.installed_folder", Path)
    assert hasattr(import_onnxruntime(), "InferenceSession")


@pytest.mark.parametrize(
    ("leftover", "message"),
    [
        ({}, "is damaged: its files are missing; run: pip uninstall -y"),
        (
            {"InferenceSession": object, "__version__": "1.20.0"},
            'ONNX Runtime 1.20.0 is too old; run: pip install -U "onnxruntime',
        ),
    ],
)
def test_a_damaged_or_old_onnxruntime_is_an_error_with_a_fix(
    monkeypatch: pytest.MonkeyPatch, leftover: dict[str, Any], message: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(**leftover))
    with pytest.raises(MissingExtra, match=message):
        import_onnxruntime()


@pytest.mark.parametrize(("cards", "extra"), [((), "cpu"), ((CARD,), "gpu")])
def test_the_installation_command_fits_this_machine(
    monkeypatch: pytest.MonkeyPatch, cards: tuple[nvidia.Card, ...], extra: str
) -> None:
    install(monkeypatch)
    monkeypatch.setattr(nvidia, "driver", lambda: nvidia.Driver(cards))
    with pytest.raises(MissingExtra) as caught:
        import_onnxruntime()
    assert str(caught.value).endswith(f"; run: {install_command(extra)}")


def test_the_command_for_a_gpu_removes_the_runtime_for_the_cpu() -> None:
    command = f"pip uninstall -y onnxruntime && {install_command('gpu')}"
    assert gpu_install_command() == command
