"""What models keep of real singers: nine sung phrases over music, neither of them trained on.

    python benchmarks/singers.py SET [-m MODEL ...]

The phrases are those of Scratch's sound library (Debian's package scratch, 26 MB, CC-BY-SA-3.0,
Massachusetts Institute of Technology), half a second to eight seconds each, in mono at 11 to 44
kHz. Each is laid at the music's own level over three instrumentals of SET's test split. Writes
benchmarks/results/singers.md. Needs the extras cpu and training, and apt-get with a network; a
minute.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from machine import EVERY_CORE, about

from bsmamba2 import Separator
from bsmamba2.array import Audio
from bsmamba2_training import layout
from bsmamba2_training.metrics import usdr_db
from bsmamba2_training.voices import SAMPLE_RATE, read_mono

RESULTS = Path(__file__).parent / "results"
VOCALS = "usr/share/scratch/Media/Sounds/Vocals"
PHRASES = (
    "Singer1.wav",
    "Singer2.wav",
    "Join-us.mp3",
    "Sing-me-a-song.mp3",
    "Come-and-play.mp3",
    "Doy-doy-doy.mp3",
    "Got-inspiration.mp3",
    "Oooo-badada.mp3",
    "Hey-yay-hey.mp3",
)
"""Of the package's vocals those that are sung; the others are drums of the mouth and a shout."""
SONGS = (0, 8, 16)
"""Of the test split, whose music lies under them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-m", "--model", action="append", type=Path, help="Default: the shipped.")
    arguments = parser.parse_args()
    songs = layout.songs(arguments.dataset, "test")
    music = [songs[number].stems()[2] for number in SONGS]
    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        voices = {name: read_mono(path / name) for path in [unpacked(folder)] for name in PHRASES}
        for model in arguments.model or [None]:
            separator = Separator(model)
            name = separator.manifest.name if model is None else model.stem
            columns[name] = [over(separator, voice, music) for voice in voices.values()]
    given = [word for model in arguments.model or () for word in ("-m", str(model))]
    command = shlex.join(["python", "benchmarks/singers.py", "SET", *given])
    page = [
        "# Real singers",
        "",
        "Nine phrases that people sing in [Scratch](https://scratch.mit.edu)'s sound library, at "
        f"the music's own level over {len(SONGS)} instrumentals of the test split: uSDR of the "
        "vocals, means of the instrumentals (the mixture has 0 dB, and so has silence), and how "
        "loud the voice itself comes out. Nobody sang in what the shipped model was trained on.",
        "",
        f"| phrase | s | {' | '.join(f'{name}, uSDR | kept' for name in columns)} |",
        f"|---|---|{'---|---|' * len(columns)}",
    ]
    for number, (name, voice) in enumerate(voices.items()):
        row = " | ".join(cells(column[number]) for column in columns.values())
        page.append(f"| {Path(name).stem} | {len(voice) / SAMPLE_RATE:.1f} | {row} |")
    means = " | ".join(cells(np.mean(column, axis=0)) for column in columns.values())
    page += [f"| **mean** | | {means} |", ""]
    page += [f"{about(EVERY_CORE, 'onnxruntime')}; `{command}`.", ""]
    (RESULTS / "singers.md").write_text("\n".join(page))
    print("\n".join(page))


def unpacked(folder: str) -> Path:
    """The phrases' folder; ends the program in a sentence where the package cannot be had."""
    script = "apt-get download --quiet --quiet scratch && dpkg-deb --extract scratch_*.deb ."
    run = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"the phrases are in Debian's package scratch, by apt-get: {run.stderr.strip()}")
    return Path(folder, VOCALS)


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
