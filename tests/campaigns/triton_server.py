"""A real Triton server: python tests/campaigns/triton_server.py --server PATH --backends DIR

Writes a repository, starts Triton with its ONNX Runtime backend, and compares songs and streams
that it separates with the same on this machine. tests/campaigns/triton_backend.sh builds the
backend where no Triton is installed. Writes results/triton_server.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests

from bsmamba2 import DeviceError, ModelError, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices import kernel
from bsmamba2_cluster.triton import connect, write_repository

RESULTS = Path(__file__).parent / "results"
RATE = 44100
SONGS = 6
LEAST_DB = 90.0
START_S = 600.0
DEADLINE_S = 1800.0
"""Plain operators are slow on a busy CPU."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", type=Path, required=True, help="The program tritonserver.")
    parser.add_argument("--backends", type=Path, required=True, help="The folder of its backends.")
    arguments = parser.parse_args()
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        names = ["small"]
        write_repository(None, folder)
        if kernel.library() is not None:
            names.append("small_kernel")
            write_repository(None, folder, name=names[-1], kernel_at=folder)
        local = Separator(device="cpu")
        with running(arguments.server, arguments.backends, Path(folder)) as (url, process):
            about = requests.get(f"{url}/v2", timeout=10).json()
            for name in names:
                rows += [f"| `{name}` | {row} |" for row in compared(url, name, local)]
            rows += [f"| `{names[-1]}` | {row} |" for row in crowded(url, names[-1], local)]
            rows += [f"| | {row} |" for row in refused(url, names[-1], process)]
    page = (
        "# A real Triton server\n\n"
        f"{about['name']} {about['version']} with its ONNX Runtime backend on a CPU, a repository "
        "that `bsmamba2 triton` wrote, the shipped weights, songs of noise. Each is compared with "
        "the same on this machine.\n\n| model | what | result |\n|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\nNothing here ran on a GPU, and no TensorRT plan ran. {datetime.date.today()}; "
        "`python tests/campaigns/triton_server.py`.\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "triton_server.md").write_text(page)
    print(page)


@contextmanager
def running(
    server: Path, backends: Path, repository: Path
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Starts a server; yields its URL and its process when every model is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--model-repository", repository, "--backend-directory", backends]
    options += ["--http-port", port, "--allow-grpc=false", "--allow-metrics=false"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen([server, *map(str, options)], stdout=log, stderr=log) as process,
    ):
        try:
            url, ends = f"http://127.0.0.1:{port}", time.monotonic() + START_S
            while not is_ready(url):
                if process.poll() is not None or time.monotonic() > ends:
                    log.seek(0)
                    raise SystemExit(log.read().decode())
                time.sleep(0.5)
            yield url, process
        finally:
            process.kill()


def is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/v2/health/ready", timeout=10).ok
    except requests.ConnectionError:
        return False


def noise(seconds: float, channels: int = 2, seed: int = 0) -> Audio:
    random = np.random.default_rng(seed)
    return random.uniform(-0.1, 0.1, (channels, int(seconds * RATE))).astype(np.float32)


def streamed(separator: Separator, song: Audio, **lengths: Any) -> Audio:
    """Separates a song as a stream, in pushes of odd lengths."""
    stream = separator.stream(RATE, song.shape[0], **lengths)
    parts = [stream.push(song[:, at : at + 9001]) for at in range(0, song.shape[1], 9001)]
    return np.concatenate([part["vocals"] for part in (*parts, stream.flush())], axis=1)


def agreement(expected: Audio, found: Audio) -> str:
    db = snr_db(expected, found)
    assert np.any(expected)
    assert db >= LEAST_DB, db
    return f"{db:.0f} dB" if np.isfinite(db) else "the same bits"


def compared(url: str, name: str, local: Separator) -> Iterator[str]:
    """Yields a row for each kind of work, one at a time."""
    remote = connect(url, name, deadline_s=DEADLINE_S)
    song = noise(9)
    expected = local(song, RATE)["vocals"]
    yield f"a song of 9 s in chunks | {agreement(expected, remote(song, RATE)['vocals'])}"
    frame_ms = 1000 * local.manifest.hop / RATE
    kinds: tuple[tuple[str, Audio, dict[str, float]], ...] = (
        ("a stream, lookahead 500 ms", noise(4), {"lookahead_ms": 500}),
        ("a stream of 4 channels, lookahead 300 ms", noise(2, 4), {"lookahead_ms": 300}),
        ("a stream in steps of one frame", noise(0.3), {"lookahead_ms": frame_ms}),
    )
    for what, piece, lengths in kinds:
        found = streamed(remote, piece, **lengths)
        yield f"{what} | {agreement(streamed(local, piece, **lengths), found)}"


def crowded(url: str, name: str, local: Separator) -> Iterator[str]:
    """Yields rows about songs and streams that run at the same time."""
    remote = connect(url, name, connections=8, deadline_s=DEADLINE_S)
    songs = [noise(2, seed=seed) for seed in range(SONGS)]
    before = batches(url, name)
    with ThreadPoolExecutor(2 * SONGS) as pool:
        chunks = [pool.submit(remote, song, RATE) for song in songs]
        streams = [pool.submit(streamed, remote, song, lookahead_ms=300) for song in songs]
    worst = min(
        snr_db(local(song, RATE)["vocals"], found.result()["vocals"])
        for song, found in zip(songs, chunks, strict=True)
    )
    yield f"{SONGS} songs and {SONGS} streams at a time: songs | at least {worst:.0f} dB"
    assert worst >= LEAST_DB
    worst = min(
        snr_db(streamed(local, song, lookahead_ms=300), found.result())
        for song, found in zip(songs, streams, strict=True)
    )
    yield f"{SONGS} songs and {SONGS} streams at a time: streams | at least {worst:.0f} dB"
    assert worst >= LEAST_DB
    runs = {size: count - before.get(size, 0) for size, count in batches(url, name).items()}
    shown = ", ".join(f"{count} of {size}" for size, count in sorted(runs.items()) if count)
    yield f"runs of the chunks above, by chunks per run | {shown}"


def batches(url: str, name: str) -> dict[int, int]:
    """Returns how many runs the server made, by their chunks."""
    answer: Any = requests.get(f"{url}/v2/models/{name}/stats", timeout=10).json()
    counts = answer["model_stats"][0]["batch_stats"]
    return {count["batch_size"]: count["compute_infer"]["count"] for count in counts}


def refused(url: str, name: str, process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Yields a row for each error; ends with the death of the server."""
    remote = connect(url, name, deadline_s=DEADLINE_S)
    stream = remote.stream(RATE, lookahead_ms=200)
    stream.push(noise(1))
    for what, work in (
        ("a model that is not there", lambda: connect(url, "paper")),
        ("a deadline of 10 ms", lambda: connect(url, name, deadline_s=0.01)),
    ):
        yield f"{what} | {message(work, url)}"
    process.kill()
    process.wait()
    yield f"the server is killed during a stream | {message(lambda: stream.push(noise(1)), url)}"
    yield f"the next song | {message(lambda: remote(noise(1), RATE), url)}"


def message(work: Any, url: str) -> str:
    try:
        work()
    except (DeviceError, ModelError) as error:
        return json.dumps(str(error).replace(url, "http://…"), ensure_ascii=False)
    raise AssertionError("no error")


if __name__ == "__main__":
    main()
