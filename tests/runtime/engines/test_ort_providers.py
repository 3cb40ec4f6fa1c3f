"""Providers: the errors that say what a device is missing, and the options of each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bsmamba2 import DeviceError
from bsmamba2.devices import nvidia
from bsmamba2.devices.device import CPU, Device, choose
from bsmamba2.devices.nvidia import Card, Driver
from bsmamba2.engines import ort_providers
from bsmamba2.engines.ort_import import gpu_install_command, import_onnxruntime
from bsmamba2.engines.ort_providers import BACKENDS, PROVIDERS, providers
from bsmamba2.files.cache import cache_folder
from bsmamba2.formats.manifest import Manifest, State
from bsmamba2.installation import install_command

CARD = Card("Fast Card", (9, 0), 80 << 30)
SetMachine = Callable[..., None]


@pytest.fixture
def set_machine(monkeypatch: pytest.MonkeyPatch) -> SetMachine:
    """``set_machine(cards=1, cuda=(13, 0), providers=("cuda",))`` mocks driver and ONNX Runtime.

    The ONNX Runtime is built for CUDA 13.0.
    """

    def mock(
        cards: int | None = 1,
        cuda: tuple[int, int] = (13, 0),
        providers: Sequence[str] = ("cuda",),
    ) -> None:
        driver = None if cards is None else Driver((CARD,) * cards, cuda, "580.65.06")
        ort = import_onnxruntime()
        available = [PROVIDERS[kind] for kind in (*providers, "cpu")]
        monkeypatch.setattr(nvidia, "driver", lambda: driver)
        monkeypatch.setattr(ort, "cuda_version", "13.0")
        monkeypatch.setattr(ort, "get_available_providers", lambda: available)

    return mock


def test_auto_chooses_the_card_where_everything_for_it_is_installed(
    set_machine: SetMachine,
) -> None:
    set_machine()
    assert choose("auto", BACKENDS) == Device("cuda", 0)


@pytest.mark.parametrize(
    "machine", [{"cards": None}, {"cards": 0}, {"providers": ()}, {"cuda": (12, 4)}]
)
def test_auto_chooses_the_cpu_where_anything_for_the_card_is_missing(
    set_machine: SetMachine, machine: dict[str, Any]
) -> None:
    set_machine(**machine)
    assert choose("auto", BACKENDS) == CPU


@pytest.mark.parametrize(
    ("machine", "requested", "message"),
    [
        (
            {"cards": None},
            "cuda",
            "there is no NVIDIA driver: install one, or use device='cpu'",
        ),
        ({"cards": None}, "tensorrt:1", "there is no NVIDIA driver"),
        ({"cards": 1}, "cuda:1", "there is no card 1: choose from cuda:0 Fast Card"),
        ({"cuda": (12, 4)}, "cuda", "CUDA 13.0 is needed, and driver 580.65.06 runs up to"),
        (
            {"providers": ()},
            "cuda",
            "ONNX Runtime for NVIDIA cards is not installed; run: " + gpu_install_command(),
        ),
        ({}, "tensorrt", "which is not installed; run: " + install_command("tensorrt")),
    ],
)
def test_a_requested_device_that_is_missing_is_an_error_with_a_fix(
    set_machine: SetMachine, machine: dict[str, Any], requested: str, message: str
) -> None:
    set_machine(**machine)
    with pytest.raises(DeviceError) as caught:
        choose(requested, BACKENDS)
    assert str(caught.value).startswith(f"device '{requested}' cannot be used: ")
    assert message in str(caught.value)


def test_a_missing_library_of_cuda_is_named_with_a_fix(
    set_machine: SetMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_machine()
    monkeypatch.setattr(ort_providers, "missing_library", lambda path: "libcudnn.so.9")
    with pytest.raises(DeviceError) as caught:
        choose("cuda", BACKENDS)
    assert "libcudnn.so.9 of CUDA or cuDNN is not found" in str(caught.value)
    assert str(caught.value).endswith(f"; run: {install_command('gpu')}")


def options(device: str, manifest: Manifest, graphs: bool = False) -> dict[str, str]:
    """Returns the options of the device's own provider."""
    chosen: dict[str, str] = providers(Device(device, 1), manifest, graphs)[0][1]
    return chosen


def test_float32_on_cuda_does_not_use_tf32() -> None:
    assert options("cuda", Manifest("m")) == {"device_id": "1", "use_tf32": "0"}
    assert options("cuda", Manifest("m"), graphs=True)["enable_cuda_graph"] == "1"


def test_tensorrt_keeps_its_engines_and_timings_in_the_user_s_cache() -> None:
    chosen, folder = options("tensorrt", Manifest("m")), str(cache_folder() / "tensorrt")
    for kind in ("engine", "timing"):
        assert chosen[f"trt_{kind}_cache_enable"] == "1"
        assert chosen[f"trt_{kind}_cache_path"] == folder


@pytest.mark.parametrize(
    ("io", "shortest", "longest"),
    [
        ("spectrum", "spectrum:1x2x3x1025x2", "spectrum:1x2x801x1025x2"),
        ("waveform", "waveform:1x2x1025", "waveform:1x2x352800"),
    ],
)
def test_one_profile_of_tensorrt_covers_every_length_of_a_chunk(
    io: str, shortest: str, longest: str
) -> None:
    chosen = options("tensorrt", Manifest("m", io=io))
    assert chosen["trt_profile_min_shapes"] == shortest
    assert chosen["trt_profile_opt_shapes"] == chosen["trt_profile_max_shapes"] == longest


@pytest.mark.parametrize(
    "manifest",
    [Manifest("m", fixed_length=True), Manifest("m", states=(State("s", (1, 2)),))],
)
def test_a_graph_of_one_shape_or_of_many_inputs_needs_no_profile(manifest: Manifest) -> None:
    assert not any("profile" in name for name in options("tensorrt", manifest))


def test_the_library_of_tensorrt_is_found_in_the_folder_of_its_package(tmp_path: Path) -> None:
    """Only the package knows the folder, so it is imported before the library is opened."""
    (tmp_path / "empty.c").write_text("int empty;")
    library = tmp_path / "inside" / "libnvinfer.so.10"
    library.parent.mkdir()
    build = ["cc", "-shared", "-Wl,-soname,libnvinfer.so.10", "-o", str(library)]
    subprocess.run([*build, str(tmp_path / "empty.c")], check=True)
    (tmp_path / "tensorrt.py").write_text(f"import ctypes; ctypes.CDLL({str(library)!r})")
    code = "from bsmamba2.engines.ort_providers import _load_tensorrt; print(_load_tensorrt())"
    path = [str(tmp_path), *filter(None, sys.path)]
    for folders, found in ((path, "True"), (path[1:], "False")):
        run = f"import sys; sys.path[:] = {folders!r}; {code}"
        done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)
        assert (done.stdout.strip(), done.stderr) == (found, "")
