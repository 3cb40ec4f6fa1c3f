"""Other networks: time and memory of the engine beside their published code in PyTorch.

    PYTHONPATH=tests python -m benchmarks.families [--only SIZE ...] [--runs 3]

For each network, a checkpoint with random weights is written from the published implementation
(packages msst and demucs, in eager PyTorch). PyTorch and bsmamba2, each in a process of its own,
then separate the same chunk of noise in turn, so that a change of the machine's speed affects both.
A chunk has the published length; after a warm-up run, the median of the runs is taken. Memory is
the peak of the process, imports and weights included. The outputs must agree to 90 dB, those of
``fast`` to 20 dB. Writes benchmarks/results/families.md. Linux; needs the extras cpu and export and
``pip install --no-deps msst demucs julius``.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import argument_parser
from benchmarks.machine import EVERY_CORE, Watch, background_load, conditions
from benchmarks.pages import RESULTS, ROOT
from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.products import products
from bsmamba2.models.check import check_input

SIZES = (
    "bs_roformer_384x12", "mel_band_roformer_384x6", "scnet_small", "scnet_large", "htdemucs",
)  # fmt: skip
PYTORCH = "PyTorch, eager"
SYSTEMS = {PYTORCH: "", "bsmamba2": "exact", "bsmamba2, `fast`": "fast"}
"""The speed of each system."""
LEAST_DB = {"exact": 90.0, "fast": 20.0}
Run = Callable[[Audio], Audio]
Figures = dict[str, Any]


def main() -> None:
    parser = argument_parser("families", __doc__)
    parser.add_argument("--only", nargs="+", choices=SIZES, default=SIZES, metavar="SIZE")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        size, speed, folder = arguments.serve
        serve(size, speed, Path(folder))
        return
    has_fast = products("fast") != "float32"
    systems = [name for name, speed in SYSTEMS.items() if speed != "fast" or has_fast]
    watch, rows = Watch(), []
    for size in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(size, systems, Path(folder), arguments.runs))
    about = conditions(EVERY_CORE, "onnxruntime", "torch")
    command = " ".join(["PYTHONPATH=tests python -m benchmarks.families", *sys.argv[1:]])
    about += f"; {background_load(watch.background_cores())}; `{command}`."
    page = describe(rows, about)
    (RESULTS / "families.md").write_text(page)
    print(page)


def measure(size: str, systems: list[str], folder: Path, runs: int) -> dict[str, Figures]:
    """Returns the figures of each system, all on one chunk."""
    subprocess.run(serving_command(size, "write", folder), check=True, cwd=ROOT)
    times: dict[str, list[float]] = {name: [] for name in systems}
    figures: dict[str, Figures] = {}
    with ExitStack() as stack:
        asks = {name: stack.enter_context(process(size, SYSTEMS[name], folder)) for name in systems}
        for number in range(runs + 1):  # the first is the warm-up
            for name, ask in asks.items():
                figures[name] = ask()
                print(f"{size}, {name}: {figures[name]['s']:.2f} s", file=sys.stderr)
                times[name] += [figures[name]["s"]] if number else []
    expected = np.load(folder / "pytorch.npy")
    for name in systems:
        speed = SYSTEMS[name]
        figures[name] |= {"size": size, "s": statistics.median(times[name])}
        figures[name]["snr_db"] = snr_db(expected, np.load(folder / f"{speed or 'pytorch'}.npy"))
        assert figures[name]["snr_db"] >= LEAST_DB.get(speed, 90), figures[name]
    return figures


def serving_command(size: str, speed: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.families", "--serve", size, speed, str(folder)]


@contextmanager
def process(size: str, speed: str, folder: Path) -> Iterator[Callable[[], Figures]]:
    """Yields a function that lets the process of a system run once and returns its figures."""
    serving = subprocess.Popen(
        serving_command(size, speed, folder),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert serving.stdin
    assert serving.stdout
    asked, answers = serving.stdin, serving.stdout

    def ask() -> Figures:
        asked.write("run\n")
        asked.flush()
        figures: Figures = json.loads(answers.readline())
        return figures

    with serving:
        yield ask
        asked.close()


def serve(size: str, speed: str, folder: Path) -> None:
    """Writes the checkpoint, or separates the chunk once per line of standard input."""
    if speed == "write":
        write_checkpoint(size, folder)
        return
    chunk = np.load(folder / "chunk.npy")
    run = engine(folder, speed) if speed else pytorch(size, folder)
    for _ in sys.stdin:
        start = time.perf_counter()
        stems = run(chunk)
        seconds = time.perf_counter() - start
        np.save(folder / f"{speed or 'pytorch'}.npy", stems)
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert peak
        print(json.dumps({"s": seconds, "gb": int(peak[1]) * 1024 / 1e9}), flush=True)


def write_checkpoint(size: str, folder: Path) -> None:
    """Writes the weights, and a chunk of noise."""
    import torch
    from safetensors.torch import save_file

    from bsmamba2_network.families import SIZES as CONFIGS

    torch.manual_seed(0)
    state = published(size).state_dict()
    save_file({name: value.contiguous().clone() for name, value in state.items()}, weights(folder))
    np.save(folder / "chunk.npy", check_input(0, 2, CONFIGS[size].chunk))  # type: ignore[attr-defined]


def weights(folder: Path) -> Path:
    return folder / "voice.safetensors"


def published(size: str) -> Any:
    """Returns the published implementation of a size, with random weights."""
    from bsmamba2_network.families import SIZES as CONFIGS
    from support import msst_roformer, reference_networks

    config: Any = CONFIGS[size]
    if "roformer" in size:
        # PyTorch's fused attention, as users have it.
        return msst_roformer.reference(config, flash_attn=True)
    if "scnet" in size:
        return reference_networks.published_scnet(config).eval()
    return reference_networks.published_htdemucs(config).eval()


def pytorch(size: str, folder: Path) -> Run:
    import torch
    from safetensors.torch import load_file

    net = published(size)
    net.load_state_dict(load_file(weights(folder)))
    normalise = "scnet_small" in size

    def run(chunk: Audio) -> Audio:
        with torch.inference_mode():
            audio = torch.from_numpy(chunk)
            mean, deviation = (
                (audio.mean(0).mean(), audio.mean(0).std(correction=0)) if normalise else (0, 1)
            )
            stems = net((audio - mean)[None] / deviation)[0] * deviation + mean
            out: Audio = stems.reshape(-1, *chunk.shape).numpy()
            return out

    return run


def engine(folder: Path, speed: str) -> Run:
    from bsmamba2 import Separator

    separator = Separator(weights(folder), device="cpu", speed=speed)
    return separator.models[0].engine.run


def describe(rows: list[dict[str, Figures]], about: str) -> str:
    """Returns the page."""
    systems = list(rows[0])
    heads = ["network", *systems, *(f"{name}, relative" for name in systems[1:])]
    lines = [
        "# Other networks",
        "",
        "Separating one chunk of the published length, with random weights: time, and peak memory "
        "of the process. The last columns are times relative to PyTorch's.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for row in rows:
        base = row[PYTORCH]
        cells = [f"{row[name]['s']:.2f} s, {row[name]['gb']:.2f} GB" for name in systems]
        cells += [f"{row[name]['s'] / base['s']:.2f}×" for name in systems[1:]]
        lines.append(f"| `{base['size']}` | {' | '.join(cells)} |")
    exact = min(row["bsmamba2"]["snr_db"] for row in rows)
    fast = [f["snr_db"] for row in rows for name, f in row.items() if SYSTEMS[name] == "fast"]
    agreement = f"bsmamba2 agrees with PyTorch to {exact:.0f} dB or better"
    agreement += f", `fast` to {min(fast):.0f} dB" if fast else ""
    return "\n".join([*lines, "", f"{agreement}. {about}", ""])


if __name__ == "__main__":
    main()
