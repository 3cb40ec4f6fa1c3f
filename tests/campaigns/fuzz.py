"""Mutated songs, models and manifests: python tests/campaigns/fuzz.py [--cases 10000] [--seed 0]

Each case is a valid file with some bytes changed, inserted, deleted or cut off; half of the songs
are changed by what knows their structure (song_mutations.py). With --songs there are no other
files. Within 10 seconds of computing time, and ten minutes in all, it must be read, or rejected
with a bsmamba2.Error of one line: no crash, no hang, no other exception. Each process runs 250
cases, and its memory may grow by at most 768 MiB after its imports and one valid song. Writes
results/fuzz.md.
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
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mutagen
import numpy as np
import numpy.typing as npt
import soundfile
from mutagen.flac import FLAC
from mutagen.id3 import APIC, TIT2
from mutagen.oggvorbis import OggVorbis
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from bsmamba2 import Error, Manifest, Separator
from bsmamba2.models.graph import shipped_graphs
from bsmamba2.models.open_model import open_model
from campaigns.song_mutations import mutate_song
from support.engines import StubEngine, half
from support.models import open_engine

RESULTS = Path(__file__).parent / "results"
BATCH = 250
BOUND_MIB = 768
SECONDS = 10
WALL_SECONDS = 600
"""The machine may be shared, so a hang is measured in computing time; this ends one that waits."""
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
FFMPEG_SONGS = {"m4a": "aac", "wma": "wmav2", "webm": "libopus"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000, help="Default: 10000.")
    parser.add_argument("--seed", type=int, default=0, help="Default: 0.")
    parser.add_argument("--songs", action="store_true", help="Mutate songs only.")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker = arguments.worker, arguments.seed, arguments.cases, arguments.songs
        print(json.dumps(run_cases(*worker)))
        return
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    growth_mib, end = 0.0, arguments.seed + arguments.cases
    for first in range(arguments.seed, end, BATCH):
        found, new, mib = campaign(min(BATCH, end - first), first, arguments.songs)
        counts, growth_mib = counts + found, max(growth_mib, mib)
        failures += new
        write_page(counts, failures, growth_mib, f"{arguments.seed}{' --songs' * arguments.songs}")
    sys.exit(1 if failures or growth_mib > BOUND_MIB else 0)


def write_page(
    counts: Counter[tuple[str, str]], failures: list[str], growth_mib: float, options: str
) -> None:
    """Writes the results of the cases that have run so far."""
    rows = [f"| {name} | {result} | {n} |" for (name, result), n in sorted(counts.items())]
    cases = sum(counts.values())
    page = "\n".join(
        [
            "# Mutated files",
            "",
            f"{cases} files, {len(failures)} failures; the memory of a process grew by at most "
            f"{growth_mib:.0f} MiB (limit: {BOUND_MIB}).",
            "",
            "| file | result | count |",
            "|---|---|---|",
            *rows,
            *(f"- {failure}" for failure in failures),
            "",
            f"{datetime.date.today()}; `python tests/campaigns/fuzz.py --cases {cases} "
            f"--seed {options}`",
            "",
        ]
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fuzz.md").write_text(page)
    print(page)


def campaign(
    cases: int, seed: int, songs_only: bool = False
) -> tuple[Counter[tuple[str, str]], list[str], float]:
    """Runs the cases in processes.

    Returns:
        The number of cases by file name and result, a line for each failure, and the largest growth
        of a process's memory in MiB.
    """
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    growth_mib = 0.0
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder)
        make_corpus(corpus)
        for first in range(0, cases, BATCH):
            count = min(BATCH, cases - first)
            command = [sys.executable, __file__, "--worker", folder]
            command += ["--seed", str(seed + first), "--cases", str(count)]
            command += ["--songs"] * songs_only
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                last = (corpus / "case.txt").read_text()
                failures.append(f"{last}: the process ended with {done.returncode}")
                counts[last.split()[2], "crash or hang"] += 1
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            counts.update({tuple(key.split("/")): n for key, n in result["counts"].items()})
            failures += result["failures"]
            growth_mib = max(growth_mib, result["growth_mib"])
    return counts, failures, growth_mib


def run_cases(corpus: Path, seed: int, cases: int, songs_only: bool = False) -> dict[str, object]:
    """Runs the cases seed … seed + cases − 1 in this process."""
    logging.disable(logging.CRITICAL)
    files = sorted(path for path in corpus.glob("valid/*"))
    contents = {path.name: path.read_bytes() for path in files}
    songs = {name: content for name, content in contents.items() if name.startswith("song.")}
    separator = Separator(StubEngine(half, n_fft=2048, hop=441, chunk=44100))
    readers: dict[str, Callable[[Path], object]] = {
        ".json": lambda path: Manifest.from_json(path.read_bytes()),
        ".onnx": read_model,
        ".safetensors": read_model,
        ".ckpt": read_model,
    }
    separator.separate_file(corpus / "valid" / "song.wav", corpus / "out", overwrite=True)
    counts: Counter[str] = Counter()
    before_mib, failures = peak_mib(), []
    for case in range(seed, seed + cases):
        random_numbers = random.Random(case)
        name = random_numbers.choice(sorted(songs if songs_only else contents))
        (corpus / "case.txt").write_text(f"case {case} {name}")
        path = corpus / f"mutated{Path(name).suffix}"
        if name in songs and random_numbers.random() < 0.5:
            path.write_bytes(mutate_song(contents[name], songs, random_numbers))
        else:
            path.write_bytes(mutate(contents[name], random_numbers))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(WALL_SECONDS)
        try:
            read = readers.get(path.suffix)
            if read:
                read(path)
            else:
                separator.separate_file(path, corpus / "out", overwrite=True)
            result = "read"
        except Error as error:
            result = "rejected"
            if len(str(error).splitlines()) != 1:
                failures.append(f"case {case} {name}: more than one line: {error!r}")
        except Exception as error:
            result = "exception"
            failures.append(f"case {case} {name}: {error!r}"[:300])
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        counts[f"{name}/{result}"] += 1
    parts = [path.name for path in (corpus / "out").glob(".*.part")]
    failures += [f"{name} is left" for name in parts]
    return {"counts": counts, "failures": failures, "growth_mib": peak_mib() - before_mib}


def read_model(path: Path) -> None:
    assert open_model(path).manifest.name
    open_engine(path, "cpu", verify=False)


def mutate(content: bytes, random_numbers: random.Random) -> bytes:
    """Makes a few random changes, most of them near the start, where headers are."""
    data, draw = bytearray(content), random_numbers.randrange
    for _ in range(random_numbers.choice((1, 1, 2, 5, 20))):
        limit = random_numbers.choice((64, 1024, len(data)))
        at = draw(max(1, min(limit, len(data))))
        change = draw(6)
        if change == 0:
            data[at : at + 1] = bytes([draw(256)])
        elif change == 1:
            size = random_numbers.choice((1, 2, 4, 8))
            data[at : at + size] = random_numbers.choice((b"\xff", b"\x00", b"\x7f")) * size
        elif change == 2:
            del data[at:]
        elif change == 3:
            del data[at : at + draw(1, 64)]
        elif change == 4:
            data[at:at] = random_numbers.randbytes(draw(1, 64))
        else:
            source = draw(max(1, len(data)))
            data[at:at] = data[source : source + draw(1, 256)]
    return bytes(data)


def make_corpus(folder: Path) -> None:
    """Writes a small valid file of every kind."""
    valid, noise = folder / "valid", np.random.default_rng(0)
    valid.mkdir()
    audio = noise.uniform(-0.1, 0.1, (12000, 2))
    for suffix, subtype in SONGS.items():
        container = "OGG" if suffix == "opus" else None
        soundfile.write(valid / f"song.{suffix}", audio, 48000, subtype, format=container)
    for suffix, codec in FFMPEG_SONGS.items():
        encode(valid / f"song.{suffix}", codec, audio)
    tag_songs(valid)
    graph = next(graph for graph in shipped_graphs() if graph.path.stem == "tiny")
    (valid / "graph.onnx").write_bytes(graph.path.read_bytes())
    (valid / "manifest.json").write_text(graph.manifest.to_json())
    shapes = graph.manifest.initialisers.items()
    weights = {name: noise.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes}
    save_file(weights, valid / "voice.safetensors")
    try:
        import torch
    except ImportError:
        return
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(value) for name, value in weights.items()}, buffer)
    (valid / "voice.ckpt").write_bytes(buffer.getvalue())


def tag_songs(folder: Path) -> None:
    """Gives the songs tags, a picture, chunks and a mask of speakers."""
    for name in ("song.flac", "song.ogg", "song.mp3", "song.wav"):
        file = mutagen.File(folder / name)
        if isinstance(file, (FLAC, OggVorbis)):
            file["title"], file["comment"] = ["t"], ["one", "two"]
        else:
            if file.tags is None:
                file.add_tags()
            file.tags.add(TIT2(encoding=3, text=["t"]))
            file.tags.add(APIC(encoding=3, mime="image/png", type=3, data=bytes(500)))
        file.save()
    six = np.random.default_rng(1).uniform(-0.1, 0.1, (3000, 6))
    soundfile.write(folder / "song.wave", six, 44100, "PCM_16", format="WAVEX")
    with (folder / "song.wave").open("ab") as wave:
        wave.write(b"LIST\x0e\0\0\0INFOINAM\x02\0\0\0t\0" + b"bext" + b"\x5a\x02\0\0" + bytes(602))


def encode(path: Path, codec: str, audio: npt.NDArray[np.float64]) -> None:
    """Writes a song that only FFmpeg can read; without PyAV, writes nothing.

    Args:
        audio: (samples, channels).
    """
    try:
        import av
    except ImportError:
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = 128_000
        samples = np.ascontiguousarray(audio.T.astype(np.float32))
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate = 48000
        convert = av.AudioResampler(stream.format, "stereo", 48000, stream.frame_size or 1024)
        for part in [*convert.resample(frame), *convert.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


def peak_mib() -> float:
    """Returns the peak resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    return int(peak[1]) / 1024 if peak else 0.0


if __name__ == "__main__":
    main()
