"""A batch killed at random moments and resumed: python tests/campaigns/kills.py [--kills 50]

A model of size tiny with random weights separates the songs. After every SIGKILL, each file with a
stem's name must equal, byte for byte, the file of an uninterrupted run. The next run resumes. When
a run finishes, all files must exist; then the folder is emptied and the batch starts again, until
the number of kills is reached. Writes results/kills.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from safetensors.numpy import save_file

from bsmamba2.models.graph import shipped_graphs

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="Default: 50.")
    parser.add_argument("--seed", type=int, default=0, help="Default: 0.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = list(campaign(Path(folder), arguments.kills, arguments.seed))
    kills = [run for run in runs if run.startswith("killed")]
    page = (
        "# SIGKILL at random moments\n\n"
        f"{len(kills)} runs were killed and {len(runs) - len(kills)} finished. After each run, "
        "every file with a stem's name equalled that of an uninterrupted run byte for byte; after "
        "each finished run, all files existed.\n\n"
        f"{datetime.date.today()}; `python tests/campaigns/kills.py --kills {arguments.kills} "
        f"--seed {arguments.seed}`\n\n" + "\n".join(f"- {run}" for run in runs) + "\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "kills.md").write_text(page)
    print(page)


def campaign(folder: Path, kills: int, seed: int, songs: int = 4) -> Iterator[str]:
    """Yields one line about each run.

    Raises:
        AssertionError: a file is missing, incomplete or different.
    """
    random_numbers = random.Random(seed)
    prepare(folder, songs)
    start = time.perf_counter()
    assert separate(folder).wait() == 0
    seconds = time.perf_counter() - start
    expected = stems(folder)
    assert len(expected) == 2 * songs
    shutil.rmtree(folder / "out")
    killed = 0
    while killed < kills:
        process, moment = separate(folder), random_numbers.uniform(0.2, 1.0) * seconds
        try:
            status = process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
            files = stems(folder)
            yield f"killed after {moment:.2f} s with {len(files)} of {len(expected)} files"
        else:
            files = stems(folder)
            yield f"finished with {len(files)} files"
            assert (status, len(files)) == (0, len(expected))
            shutil.rmtree(folder / "out")
        assert files.items() <= expected.items(), "a file differs from the uninterrupted run's"
    assert separate(folder).wait() == 0
    assert stems(folder) == expected
    assert not list((folder / "out").glob(".*.part")), "a .part file is left"
    yield f"finished with {len(expected)} files"


def prepare(folder: Path, songs: int) -> None:
    """Writes a model with random weights and an album of noise."""
    noise = np.random.default_rng(0)
    graph = next(graph for graph in shipped_graphs() if graph.path.stem == "tiny")
    shapes = graph.manifest.initialisers.items()
    weights = {name: noise.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes}
    save_file(weights, folder / "voice.safetensors")
    (folder / "album").mkdir()
    for song in range(songs):
        audio = noise.uniform(-0.1, 0.1, (10 * 44100, 2))
        suffix = ("flac", "wav")[song % 2]
        soundfile.write(folder / "album" / f"{song}.{suffix}", audio, 44100, "PCM_16")


def separate(folder: Path) -> subprocess.Popen[bytes]:
    """Starts the command on the album."""
    command = [sys.executable, "-m", "bsmamba2", "separate", str(folder / "album"), "--resume"]
    command += ["-m", str(folder / "voice.safetensors"), "-o", str(folder / "out")]
    environment = os.environ | {"BSMAMBA2_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        [*command, "--device", "cpu"], stdout=subprocess.DEVNULL, env=environment
    )


def stems(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of every file with a stem's name."""
    out = folder / "out"
    paths = out.iterdir() if out.exists() else ()
    return {path.name: path.read_bytes() for path in paths if not path.name.startswith(".")}


if __name__ == "__main__":
    main()
