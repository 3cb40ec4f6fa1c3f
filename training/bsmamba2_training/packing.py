"""What travels to another machine and back: a data set and a run, both made small.

    python -m bsmamba2_training.packing data SET PACK --megabytes 40 --leg 0
    python -m bsmamba2_training.packing state RUN FILE

Data are pieces of a minute as Vorbis, in the layout they came in, and are trained on as they are;
validation songs have no mixture file, which is their sum then. Another leg is another draw of
pieces, so that a training in many legs hears all of the set. A state keeps its weights to the bit,
and their average and the optimiser's moments in 16 bits: 10 bytes a parameter in place of 16.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import soundfile
import torch

from bsmamba2.array import Audio
from bsmamba2_training.layout import Song, Track, songs, training_pools
from bsmamba2_training.mixing import LONGEST_S
from bsmamba2_training.voices import SAMPLE_RATE

PIECE_S = 60
VOICES = 0.4
"""Part of the bytes that is voices; the rest is music, which takes twice as many a minute."""
VALID_SONGS = 6


def pack(dataset: Path, folder: Path, megabytes: float, leg: int) -> None:
    """Writes pieces of the training stems, up to so many megabytes, and some songs to validate on.

    Args:
        leg: which draw; the same number draws the same pieces.
    """
    pools = training_pools(dataset)
    rng = np.random.default_rng(leg)
    for song in songs(dataset, "valid")[:VALID_SONGS]:
        _write_song(song, folder / "valid" / song.name)
    left = megabytes * 1e6 - sum(path.stat().st_size for path in folder.rglob("*.ogg"))
    for name, tracks, part in (
        ("vocals", pools.vocals, VOICES),
        ("instrumental", pools.instrumental, 1 - VOICES),
    ):
        budget = part * left
        for number, piece in enumerate(_pieces(tracks, rng)):
            path = folder / "train" / name / f"{number:03d}.ogg"
            write_vorbis(path, piece)
            budget -= path.stat().st_size
            if budget < 0:
                path.unlink()
                break


def _pieces(tracks: tuple[Track, ...], rng: np.random.Generator) -> Iterator[Audio]:
    """Pieces of tracks that are drawn as training draws them, without end."""
    weights = np.array([min(track.seconds, LONGEST_S) for track in tracks])
    while True:
        track = tracks[int(rng.choice(len(tracks), p=weights / weights.sum()))]
        samples = min(PIECE_S, int(track.seconds)) * SAMPLE_RATE
        start = int(rng.integers(max(1, int(track.seconds * SAMPLE_RATE) - samples)))
        piece = track.read(start, samples)
        yield piece[:1] if np.array_equal(piece[0], piece[1]) else piece


def _write_song(song: Song, folder: Path) -> None:
    _, vocals, instrumental = song.stems()
    write_vorbis(folder / "vocals.ogg", vocals)
    write_vorbis(folder / "instrumental.ogg", instrumental)


def write_vorbis(path: Path, audio: Audio) -> None:
    """(channels, samples) to a file, a second at a time: libsndfile overflows on long blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(
        path, "w", SAMPLE_RATE, len(audio), "VORBIS", format="OGG"
    ) as file:  # fmt: skip
        for at in range(0, audio.shape[1], SAMPLE_RATE):
            file.write(audio[:, at : at + SAMPLE_RATE].T)


def shrink(source: Path, target: Path) -> None:
    """Copies a run's ``state.pt``, all but the weights in 16 bits."""
    state = torch.load(source, map_location="cpu", weights_only=True)
    state["average"] = {key: value.bfloat16() for key, value in state["average"].items()}
    for moments in state["optimizer"]["state"].values():
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = moments[name].bfloat16()
    torch.save(state, target)


@click.group()
def main() -> None:
    """Make a data set or a run small."""


@main.command(name="state")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("file", type=click.Path(path_type=Path))
def pack_state(run: Path, file: Path) -> None:
    """Copy the state of RUN to FILE, smaller."""
    shrink(run / "state.pt", file)


@main.command(name="data")
@click.argument("dataset", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--megabytes", default=40.0, show_default=True)
@click.option("--leg", default=0, show_default=True, help="Which draw of pieces.")
def pack_data(dataset: Path, folder: Path, megabytes: float, leg: int) -> None:
    """Pack DATASET into FOLDER."""
    pack(dataset, folder, megabytes, leg)


if __name__ == "__main__":
    main()
