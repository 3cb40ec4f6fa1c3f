"""Names of devices, and the choice of the device that a model runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import DeviceError
from bsmamba2.devices import nvidia
from bsmamba2.devices.device import CPU, Device, choose, missing_card, parse, processor
from bsmamba2.devices.nvidia import Card, Driver

CARDS = (Card("Fast Card", (9, 0), 80 << 30), Card("Slow Card", (8, 6), 8 << 30))
SetDriver = Callable[..., None]


def works(device: Device) -> None:
    """A backend that can use any device."""


def lacks_driver(device: Device) -> str:
    """A backend that can use no device."""
    return "a driver is missing: install one"


@pytest.fixture
def set_driver(monkeypatch: pytest.MonkeyPatch) -> SetDriver:
    """``set_driver(cards=2, cuda=(13, 0), fault="")`` mocks the driver; ``cards=None``: none."""

    def mock(cards: int | None = 2, cuda: tuple[int, int] = (13, 0), fault: str = "") -> None:
        driver = None if cards is None else Driver(CARDS[:cards], cuda, "580.65.06", fault)
        monkeypatch.setattr(nvidia, "driver", lambda: driver)

    return mock


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("auto", None),
        ("cpu", Device("cpu")),
        ("cuda", Device("cuda", 0)),
        ("cuda:1", Device("cuda", 1)),
        ("tensorrt:12", Device("tensorrt", 12)),
    ],
)
def test_a_name_is_parsed_into_a_device(name: str, device: Device | None) -> None:
    assert parse(name) == device


@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
def test_a_device_without_a_number_is_the_first_and_is_shown_with_its_number(kind: str) -> None:
    assert str(parse(kind)) == f"{kind}:0"
    assert str(Device("cpu")) == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:x", "cuda:-1", "cuda:", "", "CUDA", 0])
def test_an_unknown_name_is_refused_with_the_allowed_ones(name: Any) -> None:
    with pytest.raises(DeviceError, match=r"device must be auto, cpu, cuda\[:N\] or tensorrt"):
        parse(name)


@given(st.text(max_size=20))
def test_any_text_is_a_device_or_an_error_of_one_line(name: str) -> None:
    try:
        parse(name)
    except DeviceError as error:
        assert str(error).isprintable()


def test_auto_chooses_the_first_device_that_works() -> None:
    assert choose("auto", [("cuda", works), ("cpu", works)]) == Device("cuda", 0)
    assert choose("auto", [("cuda", lacks_driver), ("cpu", works)]) == CPU


def test_a_requested_device_that_works_is_chosen() -> None:
    assert choose("cuda:1", [("cpu", works), ("cuda", works)]) == Device("cuda", 1)


def test_a_requested_device_that_is_missing_is_an_error_with_a_fix() -> None:
    message = "device 'cuda:1' cannot be used: a driver is missing: install one"
    with pytest.raises(DeviceError, match=message):
        choose("cuda:1", [("cuda", lacks_driver), ("cpu", works)])


def test_a_device_that_cannot_run_the_model_is_refused_with_those_that_can() -> None:
    message = r"device must be auto or tensorrt\[:N\] for this model; got 'cpu'"
    with pytest.raises(DeviceError, match=message):
        choose("cpu", [("tensorrt", works)])


def test_auto_without_any_usable_device_reports_what_is_missing() -> None:
    with pytest.raises(DeviceError, match="tensorrt: a driver is missing"):
        choose("auto", [("tensorrt", lacks_driver)])


@pytest.mark.parametrize(("cards", "is_logged"), [(1, True), (0, False), (None, False)])
def test_auto_logs_why_a_card_stays_unused(
    set_driver: SetDriver, caplog: pytest.LogCaptureFixture, cards: int | None, is_logged: bool
) -> None:
    set_driver(cards=cards)
    backends = [("cuda", lacks_driver), ("cpu", works)]
    choose("auto", backends)
    choose("cpu", backends)  # was requested, so nothing is logged
    message = "device auto is cpu, and Fast Card is idle: a driver is missing: install one"
    assert caplog.messages == [message] * is_logged


@pytest.mark.parametrize(
    ("driver", "device", "message"),
    [
        (
            {"cards": None},
            Device("cuda"),
            "there is no NVIDIA driver: install one, or use device='cpu'",
        ),
        (
            {"cards": 0, "fault": "broken"},
            Device("cuda"),
            "the NVIDIA driver shows no card (broken): see nvidia-smi, or use device='cpu'",
        ),
        (
            {"cards": 2},
            Device("cuda", 2),
            "there is no card 2: choose from cuda:0 Fast Card, cuda:1 Slow Card",
        ),
        (
            {"cuda": (12, 4)},
            Device("cuda"),
            "CUDA 13.0 is needed, and driver 580.65.06 runs up to CUDA 12.4: update the driver, or "
            "use device='cpu'",
        ),
    ],
)
def test_a_missing_card_or_an_old_driver_is_reported_with_a_fix(
    set_driver: SetDriver, driver: dict[str, Any], device: Device, message: str
) -> None:
    set_driver(**driver)
    assert missing_card(device, cuda="13.0") == message


def test_nothing_is_missing_for_a_card_with_a_recent_driver(set_driver: SetDriver) -> None:
    set_driver()
    assert missing_card(Device("cuda", 1), cuda="13.0") is None


def test_an_unknown_version_of_cuda_accepts_any_driver(set_driver: SetDriver) -> None:
    set_driver(cuda=(12, 0))
    assert missing_card(Device("cuda"), cuda="") is None


def test_hardware_is_the_card_with_its_driver_or_the_processor(set_driver: SetDriver) -> None:
    set_driver()
    assert Device("cuda", 1).hardware == "Slow Card, compute 8.6, driver 580.65.06"
    assert CPU.hardware == Device("tensorrt", 7).hardware == processor() != ""
