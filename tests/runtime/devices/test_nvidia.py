"""What the driver says of its cards, against a library with its functions."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bsmamba2.devices import nvidia
from bsmamba2.devices.nvidia import Card, Driver

SOURCE = Path(__file__).parents[2] / "support" / "fake_cuda.c"


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """``ask(cards=2)``: what the driver of so many cards answers."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler to build the driver with")

    def build(cards):
        library = str(tmp_path / f"cuda{cards}.so")
        subprocess.run(
            ["cc", "-shared", "-fPIC", f"-DCARDS={cards}", "-o", library, SOURCE], check=True
        )
        monkeypatch.setattr(nvidia, "CUDA", (library,))
        monkeypatch.setattr(nvidia, "NVML", (library,))
        return nvidia.driver.__wrapped__()

    return build


def test_every_card_is_told_with_what_it_is(ask):
    fast, slow = Card("Fast Card", (9, 3), 80 << 30), Card("Slow Card", (10, 3), 80 << 30)
    assert ask(2) == Driver((fast, slow), (13, 1), "580.65.06")


def test_a_driver_without_cards_says_why(ask):
    assert ask(0) == Driver((), (13, 1), "580.65.06", "no CUDA-capable device is detected")


def test_no_driver_is_none(monkeypatch):
    monkeypatch.setattr(nvidia, "CUDA", ("libno-such-driver.so.1",))
    assert nvidia.driver.__wrapped__() is None
