"""What travels to another machine and back: a data set and a run, both made small.

    python -m bsmamba2_training.packing data SET PACK --megabytes 40 --leg 0
    python -m bsmamba2_training.packing state RUN FILE

Data are pieces of a minute as Vorbis, in the layout they came in, pools or songs, and are trained
on as they are; songs have no mixture file, which is their sum then. Of a song to validate on the
middle goes along, which is what a run hears of it. Another leg is another draw of pieces, so that a
training in many legs hears all of the set. A state keeps its weights and their average to the bit,
and the optimiser's moments in 16 bits: 12 bytes a parameter in place of 16.
"""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

import click
import numpy as np
import soundfile
import torch

from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError
from bsmamba2_training.layout import Song, Track, songs, training_pools, training_songs
from bsmamba2_training.mixing import draw
from bsmamba2_training.voices import SAMPLE_RATE

PIECE_S = 60
VALID_S = 12
VOICES = 0.4
"""Part of the bytes that is voices; the rest is music, which takes twice as many a minute."""
VALID_SONGS = 6


def pack(dataset: Path, folder: Path, megabytes: float, leg: int) -> None:
    """Writes pieces of the training stems, up to so many megabytes, and some songs to validate on.

    Args:
        leg: which draw; the same number draws the same pieces.

    Raises:
        AudioError: so few megabytes hold no piece of each.
    """
    pools = training_pools(dataset)
    rng = np.random.default_rng(leg)
    for song in songs(dataset, "valid")[:VALID_SONGS]:
        start = max(0.0, song.mixture.seconds - VALID_S) / 2
        _write_song(song, folder / "valid" / song.name, int(start * SAMPLE_RATE), VALID_S)
    left, train = megabytes * 1e6 - _size(folder), folder / "train"
    if pools.has_own_levels:
        _pack_songs(training_songs(dataset), train, left, rng)
    else:
        (music,) = pools.instruments
        _pack_tracks(pools.vocals, train / "vocals", VOICES * left, rng)
        _pack_tracks(music, train / "instrumental", (1 - VOICES) * left, rng)
    try:
        training_pools(folder)
    except AudioError:
        raise AudioError(
            f"megabytes must be enough for a minute of every stem; {megabytes:g} are not"
        ) from None


def _pack_tracks(
    tracks: tuple[Track, ...], folder: Path, budget: float, rng: np.random.Generator
) -> None:
    """Pieces of tracks, drawn as training draws them, up to so many bytes."""
    for number in count():
        track = draw(tracks, rng)
        piece = track.read(_start(track, rng), min(PIECE_S, int(track.seconds)) * SAMPLE_RATE)
        path = folder / f"{number:03d}.ogg"
        write_vorbis(path, piece[:1] if np.array_equal(piece[0], piece[1]) else piece)
        budget -= path.stat().st_size
        if budget < 0:
            path.unlink()
            return


def _pack_songs(found: list[Song], folder: Path, budget: float, rng: np.random.Generator) -> None:
    """Pieces of songs, all stems of each, up to so many bytes."""
    for number in count():
        song = found[rng.integers(len(found))]
        target = folder / f"{number:03d}"
        _write_song(song, target, _start(song.vocals, rng), PIECE_S)
        budget -= _size(target)
        if budget < 0:
            shutil.rmtree(target)
            return


def _start(track: Track, rng: np.random.Generator) -> int:
    """Where a piece of a track begins, samples."""
    return int(rng.integers(max(1, int((track.seconds - PIECE_S) * SAMPLE_RATE))))


def _write_song(song: Song, folder: Path, start: int, seconds: int) -> None:
    """So many seconds of each stem of a song."""
    if song.others is None:
        raise AudioError(f"{song.name} must hold its other stems, too, to be packed")
    for path in (*song.vocals.files, *song.others.files):
        track = Track((path,))
        samples = min(seconds * SAMPLE_RATE, round(track.seconds * SAMPLE_RATE) - start)
        write_vorbis(folder / f"{path.stem}.ogg", track.read(start, samples))


def _size(folder: Path) -> int:
    """Of what was packed there, bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*.ogg"))


def write_vorbis(path: Path, audio: Audio) -> None:
    """(channels, samples) to a file, a second at a time: libsndfile overflows on long blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(
        path, "w", SAMPLE_RATE, len(audio), "VORBIS", format="OGG"
    ) as file:  # fmt: skip
        for at in range(0, audio.shape[1], SAMPLE_RATE):
            file.write(audio[:, at : at + SAMPLE_RATE].T)


def shrink(source: Path, target: Path) -> None:
    """Copies a run's ``state.pt``, the optimiser's moments in 16 bits."""
    state = torch.load(source, map_location="cpu", weights_only=True)
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
