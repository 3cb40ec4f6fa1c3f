"""A batch killed at random moments and resumed: python tests/campaigns/kills.py [--kills 100]

A model of size tiny with random weights separates the songs, which have tags and pictures. Each run
is the command in a process forked from one that has its modules loaded already. One song
is so loud that its stems are rewritten as 32-bit float midway, and one is replaced during some of
the runs, by a rename or in place with the same length. After every SIGKILL, each file with a stem's
name must equal, byte for byte, the file of an uninterrupted run with one of the versions of its
song. The next run resumes. When a run finishes without a change, all files must exist and be those
of the songs as they are now, with no hidden file but the records; then the folder is emptied and
the batch starts again, until the number of kills is reached. Writes results/kills.md.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, TIT2
from mutagen.wave import WAVE
from safetensors.numpy import save_file

from bsmamba2 import cli
from bsmamba2.models.graph import shipped_graphs

RESULTS = Path(__file__).parent / "results"
SECONDS = 3
LOADED = ["bsmamba2.cli", "bsmamba2.commands.separate", "bsmamba2.separator", "onnxruntime"]
FORKS = multiprocessing.get_context("forkserver")
RECORD = ".bsmamba2.json"
CHANGING = "1.wav"
"""The song that is replaced, always by a file of the same length."""
LOUD = "0.flac"
"""The song whose stems exceed full scale in its second half."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="Default: 100.")
    parser.add_argument("--seed", type=int, default=0, help="Default: 0.")
    arguments = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for run in campaign(Path(folder), arguments.kills, arguments.seed):
            runs.append(run)
            print(run, flush=True)
    kills = [run for run in runs if run.startswith("killed")]
    changes = [run for run in runs if "replaced" in run]
    page = (
        "# SIGKILL at random moments\n\n"
        f"{len(kills)} runs were killed and {len(runs) - len(kills)} finished; during "
        f"{len(changes)} of them a song was replaced. After each run, every file with a stem's "
        "name equalled that of an uninterrupted run byte for byte; after each run that finished "
        "without a change, all files existed and nothing hidden was left but the records.\n\n"
        f"{datetime.date.today()}; `python tests/campaigns/kills.py --kills {arguments.kills} "
        f"--seed {arguments.seed}`\n\n" + "\n".join(f"- {run}" for run in runs) + "\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "kills.md").write_text(page)


def campaign(folder: Path, kills: int, seed: int, songs: int = 2) -> Iterator[str]:
    """Yields one line about each run.

    Raises:
        AssertionError: a file is missing, incomplete or different, or a hidden file is left.
    """
    random_numbers = random.Random(seed)
    prepare(folder, songs)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    FORKS.set_forkserver_preload(LOADED)
    start = time.perf_counter()
    assert wait(separate(folder)) == 0
    seconds = time.perf_counter() - start
    versions = [stems(folder)]
    replace_song(folder, 1, in_place=False)
    assert wait(separate(folder)) == 0
    versions.append(stems(folder))
    assert [len(version) for version in versions] == [2 * songs, 2 * songs]
    assert soundfile.info(folder / "out" / "0_instrumental.wav").subtype == "FLOAT"
    shutil.rmtree(folder / "out")
    current, killed = 1, 0
    while True:
        is_full, start = not (folder / "out").exists(), time.perf_counter()
        process, moment = separate(folder), random_numbers.uniform(0.2, 1.0) * seconds
        is_last = killed >= kills
        is_changed = not is_last and random_numbers.random() < 0.5
        if is_changed:
            wait(process, random_numbers.uniform(0, moment))
            current = 1 - current
            replace_song(folder, current, in_place=random_numbers.random() < 0.5)
        status = wait(process, None if is_last else moment)
        files = stems(folder)
        if status is None:
            process.kill()
            process.join()
            killed += 1
            what = f"killed after up to {moment:.2f} s with {len(files)} of {2 * songs} files"
        else:
            what = f"finished with {len(files)} files"
            if is_full:  # other programs may share the machine, so its speed changes
                seconds = time.perf_counter() - start
        yield what + ("; a song was replaced" if is_changed else "")
        for name, content in files.items():
            assert content in [version[name] for version in versions], f"{name} differs"
        if status is not None and not is_changed:
            assert (status, files == versions[current]) == (0, True), status
            hidden = [path.name for path in (folder / "out").glob(".*")]
            assert all(name.endswith(RECORD) for name in hidden), hidden
            if is_last:
                return
            shutil.rmtree(folder / "out")


def wait(process: BaseProcess, seconds: float | None = None) -> int | None:
    """Waits until the process ends, or this long; returns its status, or None."""
    process.join(seconds)
    return process.exitcode


def prepare(folder: Path, songs: int) -> None:
    """Writes a model with random weights and an album of noise, with tags and pictures."""
    noise = np.random.default_rng(0)
    graph = next(graph for graph in shipped_graphs() if graph.path.stem == "tiny")
    shapes = graph.manifest.initialisers.items()
    weights = {name: noise.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes}
    save_file(weights, folder / "voice.safetensors")
    (folder / "album").mkdir()
    for song in range(songs):
        audio = noise.uniform(-0.1, 0.1, (SECONDS * 44100, 2))
        path = folder / "album" / f"{song}.{('flac', 'wav')[song % 2]}"
        if path.name == LOUD:
            audio[len(audio) // 2 :] *= 10
        soundfile.write(path, audio, 44100, "PCM_16")
        tag(path)
    for version in range(2):
        shutil.copy(folder / "album" / CHANGING, folder / f"version{version}.wav")
    with (folder / "version1.wav").open("r+b") as file:
        file.seek(1000)
        file.write(noise.integers(-3000, 3000, SECONDS * 44100).astype("<i2").tobytes())


def tag(path: Path) -> None:
    data = bytes(range(256)) * 400
    if path.suffix == ".flac":
        flac, picture = FLAC(path), Picture()
        picture.data, picture.mime = data, "image/png"
        flac["title"] = path.stem
        flac.add_picture(picture)
        flac.save()
        return
    wave: Any = WAVE(path)
    wave.add_tags()
    wave.tags.add(TIT2(encoding=3, text=[path.stem]))
    wave.tags.add(APIC(encoding=3, mime="image/png", type=3, data=data))
    wave.save()


def replace_song(folder: Path, version: int, *, in_place: bool) -> None:
    """Replaces a song by another version: its bytes one after the other, or by a rename."""
    song, content = folder / "album" / CHANGING, (folder / f"version{version}.wav").read_bytes()
    if in_place:
        with song.open("r+b") as file:
            file.write(content)
        return
    (folder / "new.wav").write_bytes(content)
    (folder / "new.wav").replace(song)


def separate(folder: Path) -> BaseProcess:
    """Starts the command on the album. It replaces the stems of a song that has changed."""
    process = FORKS.Process(target=_separate, args=(folder,))
    process.start()
    return process


def _separate(folder: Path) -> None:
    os.environ["BSMAMBA2_CACHE"] = str(folder / "cache")
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    arguments = ["separate", str(folder / "album"), "--resume", "--overwrite", "--device", "cpu"]
    arguments += ["-m", str(folder / "voice.safetensors"), "-o", str(folder / "out")]
    cli.main(arguments, prog_name="bsmamba2")


def stems(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of every file with a stem's name."""
    out = folder / "out"
    paths = out.iterdir() if out.exists() else ()
    return {path.name: path.read_bytes() for path in paths if not path.name.startswith(".")}


if __name__ == "__main__":
    main()
