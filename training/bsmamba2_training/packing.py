"""Packs a data set and a run into small files, to move them to another machine and back.

    python -m bsmamba2_training.packing data SET PACK --megabytes 40 --leg 0
    python -m bsmamba2_training.packing state RUN FILE

A packed data set holds excerpts of one minute as Vorbis, in the layout of the original (pools or
songs), and can be trained on directly. Packed songs have no mixture file: the mixture is the sum of
the stems. Of each validation song it holds only the middle, because a run uses no other part. Each
leg draws different excerpts, so a run of many legs sees the whole set.

A packed state keeps the weights and their moving average bit-exact and stores the optimiser's
moments in 16 bits: 12 bytes per parameter instead of 16.
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
from bsmamba2_training.mixing import draw_track
from bsmamba2_training.voices import SAMPLE_RATE

EXCERPT_S = 60
VALID_S = 12
VOICE_FRACTION = 0.4
"""Fraction of the bytes for voices; music takes twice as many bytes per minute."""
VALID_SONGS = 6


def pack(dataset: Path, folder: Path, megabytes: float, leg: int) -> None:
    """Writes random excerpts of the training stems, and the middle of some validation songs.

    Args:
        megabytes: size limit for all files together.
        leg: seed of the draw; the same number draws the same excerpts.

    Raises:
        AudioError: the limit is too small for one excerpt of each stem.
    """
    pools = training_pools(dataset)
    rng = np.random.default_rng(leg)
    for song in songs(dataset, "valid")[:VALID_SONGS]:
        start = max(0.0, song.mixture.seconds - VALID_S) / 2
        _write_song(song, folder / "valid" / song.name, int(start * SAMPLE_RATE), VALID_S)
    budget, train = megabytes * 1e6 - _packed_bytes(folder), folder / "train"
    if pools.has_own_levels:
        _pack_songs(training_songs(dataset), train, budget, rng)
    else:
        (music,) = pools.instruments
        _pack_tracks(pools.vocals, train / "vocals", VOICE_FRACTION * budget, rng)
        _pack_tracks(music, train / "instrumental", (1 - VOICE_FRACTION) * budget, rng)
    try:
        training_pools(folder)
    except AudioError:
        raise AudioError(
            f"megabytes must be enough for one minute of every stem; got {megabytes:g}: give more"
        ) from None


def _pack_tracks(
    tracks: tuple[Track, ...], folder: Path, budget: float, rng: np.random.Generator
) -> None:
    """Writes excerpts of tracks, drawn as in training, until ``budget`` bytes are used."""
    for number in count():
        track = draw_track(tracks, rng)
        samples = min(EXCERPT_S, int(track.seconds)) * SAMPLE_RATE
        excerpt = track.read(_draw_start(track, rng), samples)
        path = folder / f"{number:03d}.ogg"
        write_vorbis(path, excerpt[:1] if np.array_equal(excerpt[0], excerpt[1]) else excerpt)
        budget -= path.stat().st_size
        if budget < 0:
            path.unlink()
            return


def _pack_songs(
    candidates: list[Song], folder: Path, budget: float, rng: np.random.Generator
) -> None:
    """Writes excerpts of songs, all stems of each, until ``budget`` bytes are used."""
    for number in count():
        song = candidates[rng.integers(len(candidates))]
        target = folder / f"{number:03d}"
        _write_song(song, target, _draw_start(song.vocals, rng), EXCERPT_S)
        budget -= _packed_bytes(target)
        if budget < 0:
            shutil.rmtree(target)
            return


def _draw_start(track: Track, rng: np.random.Generator) -> int:
    """Draws the first sample of an excerpt."""
    return int(rng.integers(max(1, int((track.seconds - EXCERPT_S) * SAMPLE_RATE))))


def _write_song(song: Song, folder: Path, start: int, seconds: int) -> None:
    """Writes an excerpt of each stem of a song."""
    if song.instrumental is None:
        raise AudioError(
            f"{song.name} must contain a stem besides vocals to be packed; got only a mixture and "
            "vocals: add instrumental.wav"
        )
    for path in (*song.vocals.files, *song.instrumental.files):
        track = Track((path,))
        samples = min(seconds * SAMPLE_RATE, round(track.seconds * SAMPLE_RATE) - start)
        write_vorbis(folder / f"{path.stem}.ogg", track.read(start, samples))


def _packed_bytes(folder: Path) -> int:
    """Returns the size of all packed files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*.ogg"))


def write_vorbis(path: Path, audio: Audio) -> None:
    """Writes (channels, samples), one second at a time: libsndfile overflows on long blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(
        path, "w", SAMPLE_RATE, len(audio), "VORBIS", format="OGG"
    ) as file:  # fmt: skip
        for at in range(0, audio.shape[1], SAMPLE_RATE):
            file.write(audio[:, at : at + SAMPLE_RATE].T)


def shrink(source: Path, target: Path) -> None:
    """Copies a run's ``state.pt`` with the optimiser's moments in 16 bits."""
    state = torch.load(source, map_location="cpu", weights_only=True)
    for moments in state["optimizer"]["state"].values():
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = moments[name].bfloat16()
    torch.save(state, target)


@click.group()
def main() -> None:
    """Pack a data set or the state of a run into small files."""


@main.command(name="state")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("file", type=click.Path(path_type=Path))
def pack_state(run: Path, file: Path) -> None:
    """Write the state of RUN to FILE with the optimiser's moments in 16 bits."""
    shrink(run / "state.pt", file)


@main.command(name="data")
@click.argument("dataset", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--megabytes", default=40.0, show_default=True, help="Size limit of the pack.")
@click.option(
    "--leg", default=0, show_default=True, help="Number of the leg; each draws different excerpts."
)
def pack_data(dataset: Path, folder: Path, megabytes: float, leg: int) -> None:
    """Pack excerpts of DATASET into FOLDER."""
    pack(dataset, folder, megabytes, leg)


if __name__ == "__main__":
    main()
