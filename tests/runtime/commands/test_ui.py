"""``bsmamba2 ui``: its options, and what it says where gradio is missing."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from bsmamba2.installation import install_command
from bsmamba2.ui.storage import Limits
from support.commands import run_command


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The arguments with which the page would have been served."""
    calls: list[tuple[Any, ...]] = []

    def serve(
        load: Any, models: Any, device: str, port: int | None, started: Any, limits: Limits
    ) -> None:
        started("http://127.0.0.1:1/")
        calls.append((tuple(models), device, port, limits))

    monkeypatch.setattr("bsmamba2.ui.server.serve", serve)
    return calls


def test_the_address_is_printed_and_opened(
    served: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    result = run_command("ui")
    assert result.stdout == "http://127.0.0.1:1/ (Ctrl-C stops it)\n"
    assert opened == ["http://127.0.0.1:1/"]
    assert served == [((), "auto", None, Limits())]


def test_the_options_preselect(
    served: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webbrowser.open", pytest.fail)
    places = "-m", "small", "--device", "cpu", "--port", 7777
    run_command("ui", *places, "--idle-hours", 0.5, "--disk-gb", 2, "--no-browser")
    assert served == [(("small",), "cpu", 7777, Limits(1800, 2e9))]


def test_a_wrong_model_is_refused_before_anything_is_served(served: list[tuple[Any, ...]]) -> None:
    result = run_command("ui", "-m", "smal", "--no-browser")
    assert (result.exit_code, served) == (2, [])
    assert "did you mean small?" in result.stderr


def test_a_missing_extra_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith(("gradio", "uvicorn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = run_command("ui", "--no-browser", "--port", 0)
    assert result.exit_code == 2
    command = install_command("ui")
    message = f"bsmamba2: ui needs uvicorn, which is not installed: {command}\n"
    assert result.stderr == message
    assert run_command("ui", "--help").exit_code == 0
