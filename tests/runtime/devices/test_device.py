"""The names of devices, and which one a model gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import DeviceError
from bsmamba2.devices import nvidia
from bsmamba2.devices.device import Device, choose, missing_card, parse
from bsmamba2.devices.nvidia import Card, Driver
from bsmamba2.engines import ort_session
from bsmamba2.engines.ort_session import BACKENDS, import_onnxruntime
from support.models import gain_model, open_engine

CARDS = (Card("Fast Card", (9, 0), 80 << 30), Card("Slow Card", (8, 6), 8 << 30))


@pytest.fixture
def machine(monkeypatch):
    """``machine(cards=2, cuda=(13, 0), built_for="13.0", providers=["cuda"])``: what is here."""

    def make(cards=2, cuda=(13, 0), built_for="13.0", providers=(), fault=""):
        driver = None if cards is None else Driver(CARDS[:cards], cuda, "580.65.06", fault)
        ort = import_onnxruntime()
        names = [ort_session.PROVIDERS[kind] for kind in (*providers, "cpu")]
        monkeypatch.setattr(nvidia, "driver", lambda: driver)
        monkeypatch.setattr(ort, "cuda_version", built_for)
        monkeypatch.setattr(ort, "get_available_providers", lambda: names)

    return make


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
def test_a_name_is_a_device(name, device):
    assert parse(name) == device


@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
def test_a_device_without_a_number_is_the_first_and_shows_it(kind):
    assert str(parse(kind)) == f"{kind}:0"
    assert str(Device("cpu")) == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:x", "cuda:-1", "cuda:", "", "CUDA", 0])
def test_an_unknown_device_is_told_which_exist(name):
    with pytest.raises(DeviceError, match=r"device must be auto, cpu, cuda\[:N\] or tensorrt"):
        parse(name)


@given(st.text(max_size=20))
def test_any_text_is_a_device_or_one_sentence(name):
    try:
        parse(name)
    except DeviceError as error:
        assert str(error).isprintable()


def test_auto_takes_the_first_that_can_be_had(machine):
    machine(cards=2, providers=["cuda"])
    assert choose("auto", BACKENDS) == Device("cuda", 0)


@pytest.mark.parametrize(
    "here", [{"cards": None}, {"cards": 0}, {"providers": ()}, {"cuda": (12, 4)}]
)
def test_auto_takes_the_cpu_where_anything_is_missing_of_the_gpu(machine, here):
    machine(**({"providers": ["cuda"]} | here))
    assert choose("auto", BACKENDS) == Device("cpu")


@pytest.mark.parametrize(("cards", "told"), [(1, True), (0, False), (None, False)])
def test_a_card_that_stays_idle_is_told(machine, caplog, cards, told):
    machine(cards=cards)
    choose("auto", BACKENDS)
    choose("cpu", BACKENDS)
    said = "Fast Card is idle: the ONNX Runtime for NVIDIA cards is not installed; run: pip uninst"
    assert [said in record.getMessage() for record in caplog.records] == [True] * told


@pytest.mark.parametrize(
    ("here", "asked", "mend"),
    [
        ({"cards": None}, "cuda", "there is no NVIDIA driver: install one, or use --device cpu"),
        ({"cards": 0, "fault": "broken"}, "cuda:0", "shows no card (broken): see nvidia-smi"),
        ({"cards": 2}, "cuda:2", "no card 2: there is cuda:0 Fast Card, cuda:1 Slow Card"),
        ({"cuda": (12, 4)}, "cuda", "runs up to CUDA 12.4, CUDA 13.0 is wanted: update"),
        ({"providers": ()}, "cuda", 'pip uninstall -y onnxruntime && pip install "bsmamba2[gpu]"'),
        ({"providers": ["cuda"]}, "tensorrt", 'pip install "tensorrt-cu13>=10,<11"'),
        ({"cards": None}, "tensorrt:1", "there is no NVIDIA driver"),
    ],
)
def test_what_was_asked_for_and_is_absent_is_an_error_with_its_mend(machine, here, asked, mend):
    machine(**({"providers": ["cuda"]} | here))
    with pytest.raises(DeviceError) as caught:
        choose(asked, BACKENDS)
    assert str(caught.value).startswith(f"device '{asked}' cannot be used: ")
    assert mend in str(caught.value)


def test_a_device_that_does_not_run_the_model_is_told_which_do():
    with pytest.raises(DeviceError, match=r"'cpu' does not run this model: give auto or tensorrt"):
        choose("cpu", [("tensorrt", lambda device: None)])


def test_auto_of_what_runs_nowhere_here_says_what_is_missing():
    with pytest.raises(DeviceError, match="tensorrt: a driver is missing"):
        choose("auto", [("tensorrt", lambda device: "a driver is missing")])


def test_an_unknown_version_of_cuda_is_not_held_against_a_driver(machine):
    machine(cuda=(12, 0))
    assert missing_card(Device("cuda"), cuda="") is None


def test_hardware_is_the_card_with_its_driver_or_the_processor(machine):
    machine()
    assert Device("cuda", 1).hardware == "Slow Card, compute 8.6, driver 580.65.06"
    assert Device("cpu").hardware == Device("tensorrt", 7).hardware != ""


def test_a_card_without_cuda_s_libraries_is_told_which_is_missing(machine, monkeypatch):
    machine(providers=["cuda"])
    monkeypatch.setattr(ort_session, "missing_library", lambda path: "libcudnn.so.9")
    with pytest.raises(DeviceError, match=r'libcudnn.so.9 .* pip install "bsmamba2\[gpu\]"'):
        choose("cuda", BACKENDS)


def test_a_session_that_fell_back_to_the_cpu_is_an_error(machine, tmp_path):
    machine(providers=["cuda"])
    (tmp_path / "gain.onnx").write_bytes(gain_model())
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(DeviceError, match="could not load its CUDAExecutionProvider: run pip"),
    ):
        open_engine(tmp_path / "gain.onnx", "cuda:0")
