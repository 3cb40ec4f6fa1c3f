"""How well models separate real singers: nine sung phrases over music.

    python -m benchmarks.training.singers SET [-m MODEL ...]

The phrases are from Scratch's sound library, half a second to eight seconds long and mono, mixed at
the level of the music with three instrumentals of SET's test split. Writes
benchmarks/results/singers.md. Needs the extras cpu and training, and apt-get with a network (26
MB); takes a minute.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

import bsmamba2
from benchmarks.arguments import argument_parser
from benchmarks.machine import EVERY_CORE, conditions
from benchmarks.pages import RESULTS
from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2_training import layout
from bsmamba2_training.metrics import usdr_db
from bsmamba2_training.protocol import model_protocol
from bsmamba2_training.sources import Package, fetch, matching
from bsmamba2_training.voices import SAMPLE_RATE, read_mono

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
SONGS = (0, 8, 16)
"""The songs of the test split whose instrumentals are used."""


def main() -> None:
    parser = argument_parser("training.singers", __doc__)
    parser.add_argument("dataset", type=Path, help="A data set written by bsmamba2 dataset.")
    parser.add_argument(
        "-m",
        "--model",
        action="append",
        type=Path,
        help="A model; may be repeated. Default: the shipped model.",
    )
    arguments = parser.parse_args()
    try:
        page = measure(arguments.dataset, arguments.model)
    except bsmamba2.Error as error:
        sys.exit(f"error: {error}")
    (RESULTS / "singers.md").write_text(page)
    print(page)


def measure(dataset: Path, models: list[Path] | None) -> str:
    """Measures and returns the page: one row per phrase, two columns per model.

    Args:
        models: None for the shipped model.
    """
    songs = layout.songs(dataset, "test")
    music = [songs[number % len(songs)].stems()[2] for number in SONGS]
    with tempfile.TemporaryDirectory() as folder:
        files = matching(SCRATCH, fetch(SCRATCH, Path(folder)))
        voices = {name: read_mono(path) for name, path in files}
    names, columns = [], []
    chosen: Sequence[Path | None] = models or [None]
    for model in chosen:
        separator = Separator(model)
        sha256 = model_protocol(separator, model)["model_sha256"]
        names.append(f"{separator.manifest.name if model is None else model.name} ({sha256[:8]})")
        columns.append([score(separator, voice, music) for voice in voices.values()])
    options = [word for model in models or () for word in ("-m", str(model))]
    command = shlex.join(["python", "-m", "benchmarks.training.singers", "SET", *options])
    rows = [
        f"| {name} | {len(voice) / SAMPLE_RATE:.1f} | "
        f"{' | '.join(cells(column[number]) for column in columns)} |"
        for number, (name, voice) in enumerate(voices.items())
    ]
    means = " | ".join(cells(np.mean(column, axis=0)) for column in columns)
    return "\n".join(
        [
            "# Real singers",
            "",
            f"{len(voices)} sung phrases from Scratch's sound library ({SCRATCH.by}, "
            f"{SCRATCH.licence}; Debian's {SCRATCH.name} {SCRATCH.version}), mixed at the level of "
            f"the music with {len(SONGS)} instrumentals of the test split. uSDR: of the vocals, "
            "where the mixture and silence both score 0 dB. Level: of the voice in the separated "
            "vocals, relative to its level in the mixture. Both are means over the instrumentals. "
            "The phrases are not in the training data, but these figures influenced the training "
            "recipe.",
            "",
            f"| phrase | s | {' | '.join(f'{name}, uSDR | level' for name in names)} |",
            f"|---|---|{'---|---|' * len(columns)}",
            *rows,
            f"| **mean** | | {means} |",
            "",
            f"{conditions(EVERY_CORE, 'onnxruntime')}; `{command}`.",
            "",
        ]
    )


def score(separator: Separator, voice: Audio, music: Sequence[Audio]) -> tuple[float, float]:
    """Returns the uSDR of the vocals and the level of the voice in them, dB, means over the music.

    Args:
        voice: (samples,).
        music: each (channels, samples).
    """
    scores = []
    for instrumental in music:
        accompaniment = instrumental[:, : len(voice)]
        vocals = np.stack([voice, voice])
        vocals = vocals * np.sqrt(np.square(accompaniment).mean() / np.square(vocals).mean())
        gain = 0.9 / float(np.abs(vocals + accompaniment).max())
        vocals, mixture = gain * vocals, gain * (vocals + accompaniment)
        estimate = separator(mixture.astype(np.float32), SAMPLE_RATE)["vocals"]
        level = abs(float(np.vdot(vocals, estimate))) / float(np.vdot(vocals, vocals))
        scores.append((usdr_db(vocals, estimate), 20 * np.log10(level + 1e-5)))
    usdr, level_db = np.mean(scores, axis=0)
    return float(usdr), float(level_db)


def cells(scores: Sequence[float] | npt.NDArray[np.float64]) -> str:
    return f"{scores[0]:.1f} dB | {scores[1]:.0f} dB"


if __name__ == "__main__":
    main()
