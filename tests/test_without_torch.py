"""The wheel in a fresh environment: it separates without torch and onnx."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from bsmamba2_network import BSMamba2

ROOT = Path(__file__).parents[1]


def call(*command: object, **changes: str) -> str:
    """Runs a command with changes to its environment; returns its output."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | changes
    return subprocess.run(
        [str(part) for part in command], env=environment, text=True, capture_output=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a compiler like those for Windows and macOS."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    call(*pip, "-w", folder, ROOT, BSMAMBA2_PURE="true")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the wheel and an ONNX Runtime."""
    folder = tmp_path_factory.mktemp("venv")
    call(sys.executable, "-m", "venv", folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    call(*pip, f"{wheel}[cpu]")
    return python


def test_the_wheel_without_kernels_is_for_every_platform(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_torch_and_onnx_are_not_installed(python: Path) -> None:
    find = "import importlib.util as u; print(*map(u.find_spec, ['torch', 'onnx', 'onnxscript']))"
    assert call(python, "-c", find).split() == ["None"] * 3


def test_the_shipped_weights_separate_right_after_the_install(python: Path, tmp_path: Path) -> None:
    song = 0.1 * torch.randn(50_000, 2)
    soundfile.write(tmp_path / "song.wav", song.numpy(), 44100)
    call(python, "-m", "bsmamba2", "separate", tmp_path / "song.wav")
    assert (tmp_path / "song_vocals.wav").exists()
    licence = "import importlib.metadata as m; print(m.metadata('bsmamba2')['License-Expression'])"
    assert "bsmamba2-weights" in call(python, "-c", licence)


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_checkpoint_of_a_shipped_size_separates(
    python: Path, tmp_path: Path, suffix: str
) -> None:
    net, weights = BSMamba2.untrained("tiny"), tmp_path / f"voice.{suffix}"
    net.save(weights) if suffix == "safetensors" else torch.save(net.state_dict(), weights)
    song = torch.randn(30_000, 2).clamp(-0.9, 0.9) / 4
    soundfile.write(tmp_path / "song.wav", song.numpy(), 44100, "PCM_16")
    call(python, "-m", "bsmamba2", "separate", tmp_path / "song.wav", "-m", weights)
    mixture, vocals, rest = (
        soundfile.read(tmp_path / name, dtype="int16")[0].astype(int)
        for name in ("song.wav", "song_vocals.wav", "song_instrumental.wav")
    )
    assert (vocals + rest == mixture).all()


def test_export_prints_the_command_that_installs_its_extra(
    python: Path, wheel: Path, tmp_path: Path
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        call(python, "-m", "bsmamba2", "export", "x.ckpt", "-o", tmp_path / "x.onnx")
    assert caught.value.returncode == 2
    assert f'pip install "{wheel}[export]"' in caught.value.stderr
