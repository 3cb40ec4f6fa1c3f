"""The properties of cards that the driver reports, read from a mock of the driver's library."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bsmamba2.devices import nvidia
from bsmamba2.devices.nvidia import Card, Driver, compute_capability

SOURCE = Path(__file__).parents[2] / "support" / "fake_cuda.c"
ReadDriver = Callable[[int], Driver | None]


@pytest.fixture
def read_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadDriver:
    """``read_driver(cards)``: reads a mock driver with that many cards."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler to build the mock driver")

    def read(cards: int) -> Driver | None:
        library = str(tmp_path / f"cuda{cards}.so")
        subprocess.run(
            ["cc", "-shared", "-fPIC", f"-DCARDS={cards}", "-o", library, str(SOURCE)], check=True
        )
        monkeypatch.setattr(nvidia, "CUDA", (library,))
        monkeypatch.setattr(nvidia, "NVML", (library,))
        return nvidia.driver.__wrapped__()

    return read


def test_every_card_is_read_with_its_properties(read_driver: ReadDriver) -> None:
    fast, slow = Card("Fast Card", (9, 3), 80 << 30), Card("Slow Card", (10, 3), 80 << 30)
    assert read_driver(2) == Driver((fast, slow), (13, 1), "580.65.06")


def test_a_driver_without_cards_reports_the_reason(read_driver: ReadDriver) -> None:
    assert read_driver(0) == Driver((), (13, 1), "580.65.06", "no CUDA-capable device is detected")


def test_a_missing_driver_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "CUDA", ("libno-such-driver.so.1",))
    assert nvidia.driver.__wrapped__() is None


def test_a_missing_card_has_compute_capability_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: Driver((Card("Fast Card", (9, 0), 1),)))
    assert (compute_capability(0), compute_capability(1)) == ((9, 0), (0, 0))
    monkeypatch.setattr(nvidia, "driver", lambda: None)
    assert compute_capability(0) == (0, 0)
