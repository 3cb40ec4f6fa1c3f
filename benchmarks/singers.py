"""What models keep of real singers: nine sung phrases over music.

    python benchmarks/singers.py SET [-m MODEL ...]

The phrases are those of Scratch's sound library, half a second to eight seconds each, in mono, at
the music's own level over three instrumentals of SET's test split. Writes
benchmarks/results/singers.md. Needs the extras cpu and training, and apt-get with a network (26
MB); a minute.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from machine import EVERY_CORE, about

import bsmamba2
from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2_training import evaluation, layout
from bsmamba2_training.metrics import usdr_db
from bsmamba2_training.sources import Package, fetch, matching
from bsmamba2_training.voices import SAMPLE_RATE, read_mono

RESULTS = Path(__file__).parent / "results"
SCRATCH = Package(
    "scratch",
    "1.4.0.6~dfsg1-6.1",
    "36c582eb93110f64f06c4e685c41e933ccba2fa68db12f79b10bfe840b21fc10",
    "test",
    "voice",
    "CC-BY-SA-3.0",
    "Scratch: Massachusetts Institute of Technology",
    # Left out: BeatBox1, BeatBox2 and Ya, which nobody sings.
    r"/Vocals/([A-Z][a-z]+(?:-[a-z]+)+|Singer[12])\.(?:mp3|wav)$",
)
SONGS = (0, 8, 16)
"""Of the test split, whose music lies under them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-m", "--model", action="append", type=Path, help="Default: the shipped.")
    arguments = parser.parse_args()
    try:
        page = measure(arguments.dataset, arguments.model)
    except bsmamba2.Error as error:
        sys.exit(f"error: {error}")
    (RESULTS / "singers.md").write_text(page)
    print(page)


def measure(dataset: Path, models: list[Path] | None) -> str:
    """The page: a row a phrase, two columns a model, None the shipped one."""
    songs = layout.songs(dataset, "test")
    music = [songs[number % len(songs)].stems()[2] for number in SONGS]
    with tempfile.TemporaryDirectory() as folder:
        found = matching(SCRATCH, fetch(SCRATCH, Path(folder)))
        voices = {name: read_mono(path) for name, path in found}
    names, columns = [], []
    for model in models or [None]:
        separator = Separator(model)
        sha256 = evaluation.model_protocol(separator, model)["model_sha256"]
        names.append(f"{separator.manifest.name if model is None else model.name} ({sha256[:8]})")
        columns.append([over(separator, voice, music) for voice in voices.values()])
    given = [word for model in models or () for word in ("-m", str(model))]
    command = shlex.join(["python", "benchmarks/singers.py", "SET", *given])
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
            f"{len(voices)} phrases that people sing in Scratch's sound library ({SCRATCH.by}, "
            f"{SCRATCH.licence}; Debian's {SCRATCH.name} {SCRATCH.version}), at the music's own "
            f"level over {len(SONGS)} instrumentals of the test split: uSDR of the vocals, where "
            "the mixture has 0 dB and so has silence, and how loud the voice itself comes out. "
            "Means of the instrumentals. The phrases taught nothing, but what a model kept of them "
            "was looked at while the recipe was made.",
            "",
            f"| phrase | s | {' | '.join(f'{name}, uSDR | kept' for name in names)} |",
            f"|---|---|{'---|---|' * len(columns)}",
            *rows,
            f"| **mean** | | {means} |",
            "",
            f"{about(EVERY_CORE, 'onnxruntime')}; `{command}`.",
            "",
        ]
    )


def over(separator: Separator, voice: Audio, music: Sequence[Audio]) -> tuple[float, float]:
    """uSDR of a voice over each music, and the voice's own level in its estimate, mean dB."""
    found = []
    for instrumental in music:
        under = instrumental[:, : len(voice)]
        wanted = np.stack([voice, voice])
        wanted = wanted * np.sqrt(np.square(under).mean() / np.square(wanted).mean())
        gain = 0.9 / float(np.abs(wanted + under).max())
        wanted, mixture = gain * wanted, gain * (wanted + under)
        estimate = separator(mixture.astype(np.float32), SAMPLE_RATE)["vocals"]
        kept = abs(float(np.vdot(wanted, estimate))) / float(np.vdot(wanted, wanted))
        found.append((usdr_db(wanted, estimate), 20 * np.log10(kept + 1e-5)))
    usdr, level = np.mean(found, axis=0)
    return float(usdr), float(level)


def cells(found: Sequence[float]) -> str:
    return f"{found[0]:.1f} dB | {found[1]:.0f} dB"


if __name__ == "__main__":
    main()
