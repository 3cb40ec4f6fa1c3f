"""Real songs that no training used, before and after training on real singers.

    python -m benchmarks.training.real_songs FOLDER [-m MODEL] [--before MODEL]

For each of two songs this writes to FOLDER the song and the vocals and the instrumental of both
models, as FLAC, and SONG.png, spectrograms. The model before is the one that this project shipped
before it trained on singers, read from the history of this git checkout. Needs the extra cpu,
matplotlib, and apt-get with a network (68 MB).
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

import bsmamba2
from benchmarks.arguments import argument_parser
from benchmarks.pages import ROOT

PREVIOUS_WEIGHTS = "ab6dcefb6f21b376bbc60c61344d91cb93dfaf53"
"""The git object of the weights `small` that were trained without singers."""
BEFORE, AFTER = "before", "after"
"""The names of the two models in files and pictures."""


@dataclass(frozen=True)
class RealSong:
    """A song of examples/real_song.sh."""

    heading: str
    seconds: tuple[int, int]
    """The part to separate and to draw."""
    about: str
    is_sung: bool = True


SONGS = {
    "farewell": RealSong(
        "A real song",
        (40, 70),
        "“Farewell” by Obsidian Shell (CC-BY-SA-3.0), where singing starts at 52 s",
    ),
    "orphanage": RealSong(
        "Another real song",
        (34, 64),
        "“Orphanage” by Obsidian Shell (CC-BY-SA-3.0), where singing starts at 43 s",
    ),
    "feelings": RealSong(
        "A real instrumental",
        (30, 60),
        "“Feelings” by Carlos Viola Iborra (free to use, copy and sell), which has no singing: "
        "everything in the vocals is leakage",
        is_sung=False,
    ),
}


def main() -> None:
    parser = argument_parser("training.real_songs", __doc__)
    parser.add_argument("folder", type=Path, help="Where to write songs, stems and spectrograms.")
    parser.add_argument("-m", "--model", help="Default: the shipped model.")
    parser.add_argument("--before", help="The model to compare with. Default: see above.")
    arguments = parser.parse_args()
    try:
        models = {BEFORE: previous(arguments.folder, arguments.before), AFTER: arguments.model}
        separators = {name: bsmamba2.Separator(model) for name, model in models.items()}
        for name, song in SONGS.items():
            if song.is_sung:
                print(compare(name, separators, arguments.folder))
    except bsmamba2.Error as error:
        sys.exit(f"error: {error}")


def previous(folder: Path, model: str | None) -> str:
    """Returns the model to compare with, which git writes to ``folder`` if none is given."""
    if model is not None:
        return model
    run = subprocess.run(
        ["git", "cat-file", "blob", PREVIOUS_WEIGHTS], cwd=ROOT, capture_output=True
    )
    if run.returncode != 0:
        sys.exit(
            "error: the history of this checkout does not contain the previous weights: fetch the "
            "whole history (git fetch --unshallow), or name a model with --before"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "before.safetensors"
    path.write_bytes(run.stdout)
    return str(path)


def fetch_song(name: str, folder: Path) -> Path:
    """Downloads a song; ends the program if apt-get cannot."""
    script = ["bash", str(ROOT / "examples/real_song.sh"), str(folder), name]
    run = subprocess.run(script, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{name} could not be fetched from Debian by apt-get: {run.stderr.strip()}")
    return Path(run.stdout.strip())


def compare(name: str, separators: Mapping[str, bsmamba2.Separator], folder: Path) -> Path:
    """Separates part of a song with each model; writes audio and spectrograms.

    Args:
        separators: by the name of the model in the names of the files.

    Returns:
        The picture, ``folder/NAME.png``.
    """
    song = SONGS[name]
    first, last = song.seconds
    with soundfile.SoundFile(fetch_song(name, folder)) as file:
        rate = file.samplerate
        file.seek(first * rate)
        mixture = file.read((last - first) * rate, dtype="float32", always_2d=True).T
    soundfile.write(folder / f"{name}.flac", mixture.T, rate, "PCM_24")
    shown = {"song": mixture}
    for system, separator in separators.items():
        stems = separator(mixture, rate)
        stems.save(folder, f"{name}_{system}", overwrite=True)
        shown[f"vocals {system}"] = np.asarray(stems["vocals"])
        if len(separators) == 1:
            shown["instrumental"] = np.asarray(stems["instrumental"])
    picture = folder / f"{name}.png"
    draw = runpy.run_path(str(ROOT / "examples/before_after.py"))["draw"]
    draw(shown, rate, song.seconds, picture)
    return picture


if __name__ == "__main__":
    main()
