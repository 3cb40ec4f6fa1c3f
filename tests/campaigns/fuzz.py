"""Mutated songs, models and manifests: python tests/campaigns/fuzz.py [--cases 10000] [--seed 0]

Each case is one file of ours with some bytes changed, put in, left out or cut off. It must end in
an answer or in one sentence of a bsmamba2.Error, within 20 seconds: no crash, no hang, no other
exception. The cases run in processes of 250, of which none may grow by more than 768 MiB beyond
what its imports take. Writes results/fuzz.md.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import logging
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from bsmamba2 import Error, Manifest, Separator
from bsmamba2.models.model import describe, open_engine, shipped_graphs
from support.engines import StubEngine, half

RESULTS = Path(__file__).parent / "results"
BATCH = 250
BOUND_MIB = 768
SECONDS = 20
SONGS = {
    "wav": "PCM_16",
    "flac": "PCM_24",
    "aiff": "PCM_16",
    "ogg": "VORBIS",
    "opus": None,
    "mp3": None,
    "au": "PCM_16",
    "w64": "FLOAT",
    "rf64": "PCM_24",
    "caf": "ALAC_16",
}
BY_FFMPEG = {"m4a": "aac", "wma": "wmav2", "webm": "libopus"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(arguments.worker, arguments.seed, arguments.cases)))
        return
    counts, failures, most = campaign(arguments.cases, arguments.seed)
    rows = [f"| {kind} | {how} | {n} |" for (kind, how), n in sorted(counts.items())]
    page = "\n".join(
        [
            "# Mutated files",
            "",
            f"{sum(counts.values())} files, {len(failures)} failures; the largest process grew by "
            f"{most:.0f} MiB (bound: {BOUND_MIB}).",
            "",
            "| file | end | count |",
            "|---|---|---|",
            *rows,
            *(f"- {failure}" for failure in failures),
            "",
            f"{datetime.date.today()}; `python tests/campaigns/fuzz.py --cases {arguments.cases} "
            f"--seed {arguments.seed}`",
            "",
        ]
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fuzz.md").write_text(page)
    print(page)
    sys.exit(1 if failures or most > BOUND_MIB else 0)


def campaign(cases: int, seed: int) -> tuple[Counter[tuple[str, str]], list[str], float]:
    """How the cases ended, what failed, and by how many MiB the largest process grew."""
    counts: Counter[tuple[str, str]] = Counter()
    failures, most = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder)
        make_corpus(corpus)
        for first in range(0, cases, BATCH):
            count = min(BATCH, cases - first)
            command = [sys.executable, __file__, "--worker", folder]
            command += ["--seed", str(seed + first), "--cases", str(count)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                last = (corpus / "case.txt").read_text()
                failures.append(f"{last}: the process ended with {done.returncode}")
                counts[last.split()[1], "crash or hang"] += 1
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            counts.update({tuple(key.split("/")): n for key, n in result["counts"].items()})
            failures += result["failures"]
            most = max(most, result["grown"])
    return counts, failures, most


def work(corpus: Path, seed: int, cases: int) -> dict[str, object]:
    """Runs the cases seed … seed + cases − 1 in this process."""
    logging.disable(logging.CRITICAL)
    files = sorted(path for path in corpus.glob("good/*"))
    contents = {path.name: path.read_bytes() for path in files}
    separator = Separator(StubEngine(half, n_fft=2048, hop=441, chunk=44100))
    tries: dict[str, Callable[[Path], object]] = {
        ".json": lambda path: Manifest.from_json(path.read_bytes()),
        ".onnx": read_model,
        ".safetensors": read_model,
        ".ckpt": read_model,
    }
    separator.separate_file(corpus / "good" / "song.wav", corpus / "out", overwrite=True)
    before, counts, failures = peak_mib(), Counter(), []
    for case in range(seed, seed + cases):
        chance = random.Random(case)
        name = chance.choice(sorted(contents))
        (corpus / "case.txt").write_text(f"case {case} {name}")
        path = corpus / f"bad{Path(name).suffix}"
        path.write_bytes(mutated(contents[name], chance))
        signal.alarm(SECONDS)
        started = time.perf_counter()
        try:
            attempt = tries.get(path.suffix)
            if attempt:
                attempt(path)
            else:
                separator.separate_file(path, corpus / "out", overwrite=True)
            end = "answer"
        except Error as error:
            end = "sentence"
            if len(str(error).splitlines()) != 1:
                failures.append(f"case {case} {name}: more than a line: {error!r}")
        except Exception as error:
            end = "exception"
            failures.append(f"case {case} {name}: {error!r}"[:300])
        signal.alarm(0)
        assert time.perf_counter() - started < SECONDS
        counts[f"{name}/{end}"] += 1
    left = [path.name for path in (corpus / "out").glob(".*.part")]
    failures += [f"{name} is left" for name in left]
    return {"counts": counts, "failures": failures, "grown": peak_mib() - before}


def read_model(path: Path) -> None:
    describe(path)
    open_engine(path, "cpu", verify=False)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A few changes, more of them at the start, where headers are."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        near = chance.choice((64, 1024, len(data)))
        at = chance.randrange(max(1, min(near, len(data))))
        how = chance.randrange(6)
        if how == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif how == 1:
            size = chance.choice((1, 2, 4, 8))
            data[at : at + size] = chance.choice((b"\xff", b"\x00", b"\x7f")) * size
        elif how == 2:
            del data[at:]
        elif how == 3:
            del data[at : at + chance.randrange(1, 64)]
        elif how == 4:
            data[at:at] = chance.randbytes(chance.randrange(1, 64))
        else:
            source = chance.randrange(max(1, len(data)))
            data[at:at] = data[source : source + chance.randrange(1, 256)]
    return bytes(data)


def make_corpus(folder: Path) -> None:
    """Small good files of every kind."""
    good, noise = folder / "good", np.random.default_rng(0)
    good.mkdir()
    audio = noise.uniform(-0.1, 0.1, (12000, 2))
    for suffix, subtype in SONGS.items():
        container = "OGG" if suffix == "opus" else None
        soundfile.write(good / f"song.{suffix}", audio, 48000, subtype, format=container)
    for suffix, codec in BY_FFMPEG.items():
        encode(good / f"song.{suffix}", codec, audio)
    graph = next(graph for graph in shipped_graphs() if graph.path.stem == "tiny")
    (good / "graph.onnx").write_bytes(graph.path.read_bytes())
    (good / "manifest.json").write_text(graph.manifest.to_json())
    shapes = graph.manifest.initialisers.items()
    weights = {name: noise.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes}
    save_file(weights, good / "voice.safetensors")
    try:
        import torch
    except ImportError:
        return
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(value) for name, value in weights.items()}, buffer)
    (good / "voice.ckpt").write_bytes(buffer.getvalue())


def encode(path: Path, codec: str, audio: np.ndarray) -> None:
    """A song that FFmpeg alone reads, where PyAV is installed."""
    try:
        import av
    except ImportError:
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="stereo")
        stream.bit_rate = 128_000
        samples = np.ascontiguousarray(audio.T.astype(np.float32))
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate = 48000
        convert = av.AudioResampler(stream.format, "stereo", 48000, stream.frame_size or 1024)
        for part in [*convert.resample(frame), *convert.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


def peak_mib() -> float:
    """The most that this process has had in memory."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    main()
