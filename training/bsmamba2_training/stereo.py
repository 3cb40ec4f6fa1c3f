"""Where voices and music sound in stereo, as varied as in songs.

A voice that training only ever heard in the middle is lost as soon as a song puts it elsewhere. Two
kinds of changes are drawn here: the place of one stem, and a change of the whole mixture, which is
a 2 × 2 matrix for all stems alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

from bsmamba2.audio.array import Audio
from bsmamba2_training.voices import SAMPLE_RATE

Matrix = npt.NDArray[np.float32]
PLACES = ("pan", "hard", "haas", "antiphase", "double", "width")
MAX_HAAS_S, MAX_DOUBLE_S = 0.03, 0.045
"""Longest delay of one channel, and of the second take of a double-tracked voice."""


def draw_place(rng: np.random.Generator) -> str:
    """Draws where a stem sounds."""
    return str(rng.choice(PLACES, p=(0.25, 0.22, 0.1, 0.2, 0.1, 0.13)))


def place(audio: Audio, where: str, rng: np.random.Generator) -> Audio:
    """Moves a stem, (2, samples); exact silence stays exact, apart from delays.

    Args:
        where: ``pan`` anywhere between the two sides, ``hard`` to one side, ``haas`` delays one
            channel by 1 to 30 ms, ``antiphase`` inverts one channel, ``double`` adds a second take
            on the other side, and ``width`` makes the stem narrower or wider.
    """
    if where == "pan":
        angle = rng.uniform(0, np.pi / 2)
        return _pan(audio, float(angle))
    if where == "hard":
        return _pan(audio, float(rng.choice((0.0, np.pi / 2))))
    if where == "haas":
        delay = int(rng.uniform(0.001, MAX_HAAS_S) * SAMPLE_RATE)
        late = _delay(audio, delay)
        pair = (audio[0], late[1]) if rng.random() < 0.5 else (late[0], audio[1])
        return np.stack(pair)
    if where == "antiphase":
        return transform(audio, np.diag((1, -1)).astype(np.float32))
    if where == "double":
        angle = float(rng.uniform(0, np.pi / 4))
        gain = np.float32(10 ** (rng.uniform(-6, 0) / 20))
        return _pan(audio, angle) + gain * _pan(_second_take(audio, rng), np.pi / 2 - angle)
    return transform(audio, _width(float(rng.uniform(0, 2))))


def draw_matrix(rng: np.random.Generator) -> Matrix:
    """Draws a change of the whole mixture: one silent channel, mono, another width, or none.

    The channels are swapped half of the time.
    """
    matrix = np.eye(2, dtype=np.float32)
    draw = rng.random()
    if draw < 0.15:
        matrix = np.diag((1, 0)).astype(np.float32)
        if rng.random() < 0.5:  # of a mono mixture, as in a transfer of which a channel is missing
            matrix = matrix @ _width(0.0)
    elif draw < 0.35:
        matrix = _width(0.0)
    elif draw < 0.5:
        matrix = _width(float(rng.uniform(0.2, 1.6)))
    return matrix[::-1] if rng.random() < 0.5 else matrix


def transform(audio: Audio, matrix: Matrix) -> Audio:
    """Mixes the channels, (2, samples)."""
    out: Audio = (matrix @ audio).astype(np.float32)
    return out


def _pan(audio: Audio, angle: float) -> Audio:
    """Moves the sum of both channels: 0 is left, π/4 the middle at its own level, π/2 right."""
    mono = audio.mean(axis=0)
    gains = np.sqrt(2) * np.array([[np.cos(angle)], [np.sin(angle)]], np.float32)
    gains[np.abs(gains) < 1e-6] = 0  # hard left is exactly silent on the right
    out: Audio = (gains * mono).astype(np.float32)
    return out


def _width(width: float) -> Matrix:
    """Scales the difference of the channels: 0 is mono, 1 no change."""
    same, other = (1 + width) / 2, (1 - width) / 2
    return np.array([[same, other], [other, same]], np.float32)


def _delay(audio: Audio, samples: int) -> Audio:
    return np.pad(audio, ((0, 0), (samples, 0)))[:, : audio.shape[1]]


def _second_take(audio: Audio, rng: np.random.Generator) -> Audio:
    """Returns the stem a little later and up to 12 cents higher or lower."""
    speed = float(2 ** (rng.uniform(-12, 12) / 1200))
    take = soxr.resample(audio.T, speed, 1.0, quality="LQ").T[:, : audio.shape[1]]
    take = np.pad(take, ((0, 0), (0, audio.shape[1] - take.shape[1])))
    return _delay(take, int(rng.uniform(0.01, MAX_DOUBLE_S) * SAMPLE_RATE))
