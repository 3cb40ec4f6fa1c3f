"""A song on a GPU: through PyTorch; and what reading and writing it takes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import gpu_chip as chip
import gpu_network
import torch
from gpu_chip import RATE, milliseconds, pinned
from gpu_network import CHUNK_SECONDS, Bench
from gpu_rows import LEAST_DB, WRONG, Row, Rows, failed, median_seconds
from torch import Tensor

SONG_SECONDS = 180
BATCHES = (4, 8, 12)


def time_song(bench: Bench) -> Rows:
    """float32 in host memory to stems in host memory, warm, without overlap."""
    rows = [time_batches(bench, batch) for batch in BATCHES]
    return [*rows, *time_files(bench.truth.noise(CHUNK_SECONDS)[0].cpu())]


def time_batches(bench: Bench, batch: int) -> Row:
    """The song as batches of chunks, each batch one CUDA graph."""
    row: Row = {"what": f"song of {SONG_SECONDS:g} s, PyTorch, our kernel, CUDA graph, bf16",
                "chunks": f"{CHUNK_SECONDS} s x {batch}"}  # fmt: skip
    try:
        chunk, count = int(CHUNK_SECONDS * RATE), math.ceil(SONG_SECONDS / CHUNK_SECONDS)
        noise = bench.truth.noise(CHUNK_SECONDS)
        wanted = bench.truth.stems(CHUNK_SECONDS)[0].cpu()
        chip.forget_peak()
        song = pinned(noise[0].cpu().repeat(1, count))
        stems = pinned(torch.zeros_like(song))
        static = noise.repeat(batch, 1, 1)
        replay = gpu_network.captured(bench.net, static, "bf16")

        def run() -> None:
            separate_song(song, stems, chunk, static, replay)
            if chip.DEVICE == "cuda":
                torch.cuda.synchronize()

        run()
        row["dB"] = min(chip.snr_db(wanted, part) for part in stems.split(chunk, -1))
        row["ok"] = row["dB"] >= LEAST_DB["bf16"]
        if not row["ok"]:
            return {**row, "note": WRONG}
        took = milliseconds(run, 2.0)
        row |= {"ms": took, "x real time": SONG_SECONDS * 1e3 / took, "GB": chip.peak_gb()}
    except Exception as error:
        row["note"] = failed(error)
    return row


def separate_song(
    song: Tensor, stems: Tensor, chunk: int, static: Tensor, replay: Callable[[], Tensor]
) -> None:
    """Whole chunks of (channels, samples) to the first stem; ``replay`` reads ``static``."""
    count, batch, channels = song.shape[-1] // chunk, static.shape[0], song.shape[0]
    for at in range(0, count, batch):
        spots = [
            (i, c, slice((at + i) * chunk, (at + i + 1) * chunk))
            for i in range(min(batch, count - at))
            for c in range(channels)
        ]
        for i, c, samples in spots:  # each lies in one piece, so no copy waits
            static[i, c].copy_(song[c, samples], non_blocking=True)
        out = replay()
        for i, c, samples in spots:
            stems[c, samples].copy_(out[i, 0, c], non_blocking=True)


def time_files(noise: Tensor) -> Rows:
    """Reading a song, and writing two stems of it, as FLAC of 16 bits; noise, the worst to pack."""
    try:
        import soundfile
    except ModuleNotFoundError as error:
        return [{"what": "decoding and encoding", "note": failed(error)}]
    length = int(SONG_SECONDS * RATE)
    audio = noise.repeat(1, -(-length // noise.shape[1]))[:, :length]
    samples = (0.5 * audio).T.contiguous().numpy()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "song.flac"

        def encode() -> None:
            for _ in range(2):
                soundfile.write(path, samples, RATE, "PCM_16")

        def decode() -> None:
            soundfile.read(path, dtype="float32")

        return [
            {"what": f"{what} (one core)", "ms": median_seconds(run, 3) * 1e3}
            for what, run in (("encoding its two stems", encode), ("decoding the song", decode))
        ]
