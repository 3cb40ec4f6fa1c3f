"""``bsmamba2 bench``: the models that are here, as a table and as JSON, and failures as rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bsmamba2 import DeviceError
from bsmamba2.commands import bench
from support.commands import run_command

ROW = {
    "real_time": 6.854,
    "song_seconds": 37.2,
    "load_seconds": 2.2,
    "chunks": 3,
    "memory_bytes": 240_000_000,
    "check_db": 103.4,
    "device": "cpu",
    "products": "bf16x3 (amx)",
}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The arguments of every measurement; none takes place."""
    calls: list[tuple[Any, ...]] = []

    def measure(*arguments: Any) -> dict[str, Any]:
        calls.append(arguments)
        if arguments[0] == "broken.onnx":
            raise DeviceError("broken.onnx does not reproduce its check: use device='cpu'")
        return ROW

    monkeypatch.setattr(bench, "measure_alone", measure)
    return calls


def test_the_shipped_model_is_measured_for_real_and_nothing_is_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))
    result = run_command("bench", "--seconds", "0", "--device", "cpu", "--json")
    found = json.loads(result.stdout)
    assert {row["model"] for row in found["results"]} == {"small"}
    assert all(row["check_db"] > 20 and row["real_time"] > 0 for row in found["results"])
    assert {"processor", "cores", "threads", "kernel", "onnxruntime"} <= set(found)


def test_the_table_states_the_results_and_the_machine(measured: list[Any]) -> None:
    result = run_command("bench", "-m", "small", "--device", "cpu")
    row, *about = result.stdout.splitlines()[1:]
    assert " ".join(row.split()) == "small cpu exact bf16x3 (amx) 6.85 0:37 0.24 GB 103 dB"
    assert "a thread on every physical core; kernel: " in about[0]
    assert about[1].startswith("bsmamba2 ")


def test_each_case_gets_an_equal_part_of_the_time_that_is_left(measured: list[Any]) -> None:
    run_command("bench", "-m", "a.onnx", "-m", "b.onnx", "--seconds", "30", "--json")
    assert [call[0] for call in measured] == ["a.onnx", "b.onnx"]
    assert measured[0][3] == pytest.approx(15, abs=1)
    assert measured[1][3] == pytest.approx(30, abs=2)


def test_a_model_that_fails_is_one_row_and_the_others_are_measured(measured: list[Any]) -> None:
    result = run_command("bench", "-m", "broken.onnx", "-m", "small", "--device", "cpu")
    assert result.exit_code == 2
    assert "failed" in result.stdout
    assert "broken.onnx, exact: broken.onnx does not reproduce its check: use --device cpu" in (
        " ".join(result.stdout.split())
    )
    assert "6.85" in result.stdout


def test_a_speed_with_the_same_products_is_not_measured_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bsmamba2.models.loaded_model.products", lambda speed: "float32")
    assert bench.speeds("small", "cpu") == ("exact",)
    monkeypatch.setattr("bsmamba2.models.loaded_model.products", lambda speed: speed)
    assert bench.speeds("small", "cpu") == ("exact", "fast")
