"""A batch killed at random moments and resumed: python tests/campaigns/kills.py [--kills 50]

Songs are separated by a real model of the size tiny, with random weights. After every SIGKILL each
file that has a stem's name must be, byte for byte, what a run that nobody disturbed makes; the next
run resumes, and when one comes to its end all files must be there. Then the folder is emptied and
it begins again, until there were enough kills. Writes results/kills.md.
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

from bsmamba2.models.model import shipped_graphs

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        moments = list(campaign(Path(folder), arguments.kills, arguments.seed))
    caught = [moment for moment in moments if moment.startswith("killed")]
    page = (
        f"# SIGKILL at random moments\n\n{len(caught)} kills, {len(moments) - len(caught)} runs "
        "that came to their end. After each, every file under a stem's name was whole and had the "
        "bytes of an undisturbed run; after each end all files were there.\n\n"
        f"{datetime.date.today()}; `python tests/campaigns/kills.py --kills {arguments.kills} "
        f"--seed {arguments.seed}`\n\n" + "\n".join(f"- {moment}" for moment in moments) + "\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "kills.md").write_text(page)
    print(page)


def campaign(folder: Path, kills: int, seed: int, songs: int = 4) -> Iterator[str]:
    """Yields what became of each run; raises AssertionError where a promise is broken."""
    chance = random.Random(seed)
    prepare(folder, songs)
    started = time.perf_counter()
    assert run(folder).wait() == 0
    lasts = time.perf_counter() - started
    wanted = stems(folder)
    assert len(wanted) == 2 * songs
    shutil.rmtree(folder / "out")
    killed = 0
    while killed < kills:
        process, moment = run(folder), chance.uniform(0.2, 1.0) * lasts
        try:
            status = process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
            there = stems(folder)
            yield f"killed after {moment:.2f} s with {len(there)} of {len(wanted)} files there"
        else:
            there = stems(folder)
            yield f"ended with {len(there)} files"
            assert (status, len(there)) == (0, len(wanted))
            shutil.rmtree(folder / "out")
        assert there.items() <= wanted.items(), "a file is not what an undisturbed run makes"
    assert run(folder).wait() == 0
    assert stems(folder) == wanted
    assert not list((folder / "out").glob(".*.part")), "a part is left"
    yield f"ended with {len(wanted)} files"


def prepare(folder: Path, songs: int) -> None:
    """A model of random weights and an album of noise."""
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


def run(folder: Path) -> subprocess.Popen[bytes]:
    """One run of the command over the album."""
    command = [sys.executable, "-m", "bsmamba2", "separate", str(folder / "album"), "--resume"]
    command += ["-m", str(folder / "voice.safetensors"), "-o", str(folder / "out")]
    environment = os.environ | {"BSMAMBA2_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        [*command, "--device", "cpu"], stdout=subprocess.DEVNULL, env=environment
    )


def stems(folder: Path) -> dict[str, bytes]:
    """What has a stem's name, with its bytes."""
    out = folder / "out"
    found = out.iterdir() if out.exists() else ()
    return {path.name: path.read_bytes() for path in found if not path.name.startswith(".")}


if __name__ == "__main__":
    main()
