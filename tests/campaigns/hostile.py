"""Hostile checkpoints, yaml and ONNX files: python tests/campaigns/hostile.py [--cases 2000]

Each case is a file that is valid up to one hostile choice: see ``hostile_files``. Within 10 seconds
of computing time, and ten minutes in all, it must be read, or rejected with a bsmamba2.Error of one
line, without a warning. Models that are read are also loaded and run on a tenth of a second. The
memory of the process may grow by at most 1 GiB more than the length of the file. Writes
results/hostile.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import random
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from bsmamba2 import Error
from bsmamba2.devices.device import CPU
from bsmamba2.formats.yaml_file import read_yaml
from bsmamba2.models.check import check_input
from bsmamba2.models.open_model import open_model
from bsmamba2_network import BSMamba2
from bsmamba2_network.config import Config
from campaigns.fuzz import peak_mib
from campaigns.hostile_files import STRATEGIES

RESULTS = Path(__file__).parent / "results"
BATCH = 250
SECONDS = 10
WALL_SECONDS = 600
"""The machine may be shared, so a hang is measured in computing time; this ends one that waits."""
BOUND_MIB = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000, help="Default: 2000.")
    parser.add_argument("--seed", type=int, default=0, help="Default: 0.")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_cases(arguments.worker, arguments.seed, arguments.cases)
        return
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    most_mib, end = 0.0, arguments.seed + arguments.cases
    for first in range(arguments.seed, end, BATCH):
        found, new, mib = campaign(min(BATCH, end - first), first)
        counts, most_mib = counts + found, max(most_mib, mib)
        failures += new
        write_page(counts, failures, most_mib, arguments.seed)
    sys.exit(1 if failures or most_mib > BOUND_MIB else 0)


def write_page(
    counts: Counter[tuple[str, str]], failures: list[str], most_mib: float, seed: int
) -> None:
    """Writes the results of the cases that have run so far."""
    rows = [f"| {name} | {result} | {n} |" for (name, result), n in sorted(counts.items())]
    cases = sum(counts.values())
    page = (
        "# Hostile checkpoints, yaml and ONNX files\n\n"
        f"{cases} files, {len(failures)} failures; a file took at most {most_mib:.0f} MiB more "
        f"than its own length (limit: {BOUND_MIB}), and less than {SECONDS} s of computing time."
        f"\n\n| file | result | count |\n|---|---|---|\n{chr(10).join(rows)}\n\n"
        + "".join(f"- {failure}\n" for failure in failures)
        + f"{datetime.date.today()}; `python tests/campaigns/hostile.py --cases {cases} "
        f"--seed {seed}`\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "hostile.md").write_text(page)
    print(page)


def campaign(cases: int, seed: int) -> tuple[Counter[tuple[str, str]], list[str], float]:
    """Runs the cases in a process, and in another one after a case that ends it.

    Returns:
        The number of cases by strategy and result, a line for each failure, and the most memory
        that a file took beyond its own length, in MiB.
    """
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    most_mib, case = 0.0, seed
    while case < seed + cases:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--worker", folder]
            command += ["--seed", str(case), "--cases", str(seed + cases - case)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        for line in done.stdout.splitlines():
            result = json.loads(line)
            counts[strategy(case), result["result"]] += 1
            failures += result["failures"]
            most_mib = max(most_mib, result["mib"])
            case += 1
        if done.returncode:
            counts[strategy(case), "crash or hang"] += 1
            failures.append(f"case {case} {strategy(case)}: ended with {done.returncode}")
            case += 1
    return counts, failures, most_mib


def strategy(case: int) -> str:
    return list(STRATEGIES)[case % len(STRATEGIES)]


def run_cases(folder: Path, seed: int, cases: int) -> None:
    """Runs the cases seed … seed + cases − 1 in this process, and prints a line of JSON for each.

    Memory is that beyond the length of the file, in MiB.
    """
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    for case in range(seed, seed + cases):
        name, failures = strategy(case), list[str]()
        suffix, content = STRATEGIES[name](random.Random(case))
        path = folder / f"hostile{suffix}"
        path.write_bytes(content)
        size_mib = len(content) / 2**20
        del content
        reset_peak()
        before_mib = peak_mib()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(WALL_SECONDS)
        try:
            read(path)
            result = "read"
        except Error as error:
            result = "rejected"
            if not str(error).isprintable():
                failures.append(f"case {case} {name}: not one line: {error!r}"[:300])
        except Exception as error:
            result = "exception"
            failures.append(f"case {case} {name}: {error!r}"[:300])
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        mib = peak_mib() - before_mib - size_mib
        if mib > BOUND_MIB:
            failures.append(f"case {case} {name}: {mib:.0f} MiB")
        print(json.dumps({"result": result, "failures": failures, "mib": mib}), flush=True)


def read(path: Path) -> None:
    """Reads a file as the commands do, and runs what it describes."""
    if path.suffix == ".yaml":
        config = Config.from_msst(read_yaml(path))
        with torch.device("meta"):
            BSMamba2(config)
        return
    model = open_model(path)
    engine = model.chunk_engine(CPU)
    manifest = engine.manifest
    engine.run(np.ascontiguousarray(check_input(0, manifest.channels, manifest.sample_rate // 10)))


def reset_peak() -> None:
    """Makes the peak memory of this process its current memory."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
