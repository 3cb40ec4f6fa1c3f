"""A song through PyTorch on a GPU, and the time to read and write its files."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu import chip, network
from benchmarks.gpu.chip import RATE, milliseconds, pinned
from benchmarks.gpu.network import CHUNK_SECONDS, Bench
from benchmarks.gpu.rows import MIN_SNR_DB, WRONG, Row, Rows, describe_error, median_seconds

SONG_SECONDS: float = 180
BATCHES = (4, 8, 12)


def time_song(bench: Bench) -> Rows:
    """Times a song, float32 in host memory to stems in host memory, warm, without overlap."""
    rows = [time_batches(bench, batch) for batch in BATCHES]
    return [*rows, *time_files(bench.truth.noise(CHUNK_SECONDS)[0].cpu())]


def time_batches(bench: Bench, batch: int) -> Row:
    """Times the song in batches of chunks, each batch one CUDA graph."""
    row: Row = {"what": f"song of {SONG_SECONDS:g} s, PyTorch, our kernel, CUDA graph, bf16",
                "chunks": f"{CHUNK_SECONDS} s x {batch}"}  # fmt: skip
    try:
        chunk, count = int(CHUNK_SECONDS * RATE), math.ceil(SONG_SECONDS / CHUNK_SECONDS)
        noise = bench.truth.noise(CHUNK_SECONDS)
        expected = bench.truth.stems(CHUNK_SECONDS)[0].cpu()
        chip.reset_peak()
        song = pinned(noise[0].cpu().repeat(1, count))
        stems = pinned(torch.zeros_like(song))
        static = noise.repeat(batch, 1, 1)
        replay = network.captured(bench.net, static, "bf16")

        def run() -> None:
            separate_song(song, stems, chunk, static, replay)
            if chip.DEVICE == "cuda":
                torch.cuda.synchronize()

        run()
        row["dB"] = min(chip.snr_db(expected, part) for part in stems.split(chunk, -1))
        row["ok"] = row["dB"] >= MIN_SNR_DB["bf16"]
        if not row["ok"]:
            return {**row, "note": WRONG}
        ms = milliseconds(run, 2.0)
        row |= {
            "ms": ms,
            "x real time": SONG_SECONDS * 1e3 / ms,
            "GB": chip.peak_gb(),
        }
    except Exception as error:
        row["note"] = describe_error(error)
    return row


def separate_song(
    song: Tensor, stems: Tensor, chunk: int, static: Tensor, replay: Callable[[], Tensor]
) -> None:
    """Writes the first stem of whole chunks of a song.

    Args:
        song, stems: (channels, samples).
        chunk: samples.
        static: (batch, channels, chunk), the input of ``replay``.
        replay: separates ``static``.
    """
    count, batch, channels = song.shape[-1] // chunk, static.shape[0], song.shape[0]
    for first in range(0, count, batch):
        rows = [
            (i, c, slice((first + i) * chunk, (first + i + 1) * chunk))
            for i in range(min(batch, count - first))
            for c in range(channels)
        ]
        for i, c, samples in rows:  # each slice is contiguous, so its copy is asynchronous
            static[i, c].copy_(song[c, samples], non_blocking=True)
        out = replay()
        for i, c, samples in rows:
            stems[c, samples].copy_(out[i, 0, c], non_blocking=True)


def time_files(noise: Tensor) -> Rows:
    """Times reading a song and writing its two stems as 16-bit FLAC.

    The song is noise, which takes the longest to compress.
    """
    try:
        import soundfile
    except ModuleNotFoundError as error:
        return [{"what": "decoding and encoding", "note": describe_error(error)}]
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
