"""A stream's steps against real time: python benchmarks/streaming.py [--steps 3]

For each size, pairs of block and lookahead. A step must take less than its block lasts; what it
costs more than a run of the whole is (block + lookahead) / block. The first step of every schedule
is compared with the network before any is timed. Writes benchmarks/results/streaming.md. Needs the
extras cpu and network.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from machine import EVERY_CORE, Watch, about, busy

from bsmamba2.audio.schedule import Schedule
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices import kernel
from bsmamba2.engines.step_engine import StepEngine
from bsmamba2.models.model import open_step_engine
from bsmamba2_network import BSMamba2

RESULTS = Path(__file__).parent / "results"
SCHEDULES = {
    "small": [(1, 1), (2, 4), (4, 4), (10, 10), (20, 20), (40, 40), (40, 10)],
    "medium": [(1, 1), (5, 10), (10, 10), (25, 25), (50, 50), (100, 100), (100, 25)],
    "paper": [(10, 10), (50, 25), (100, 25), (100, 100)],
}
LEAST_DB = 90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3, help="Timed for each schedule.")
    parser.add_argument("--only", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    arguments = parser.parse_args()
    steps = arguments.steps
    scan = "the kernel" if kernel.library() else "plain operators"
    watch = Watch()
    page = [
        "# The steps of a stream",
        "",
        "| size | block | lookahead | work | a step | × real time | keeps up | SNR |",
        "|---|---|---|---|---|---|---|---|",
        *(row for preset in arguments.only for row in rows(preset, steps)),
        "",
        f"Random weights, one stereo stream; the median of {steps} steps, spectra in and out; work "
        f"is (block + lookahead) / block; SNR of the first step against the network. The scan by "
        f"{scan}; {about(EVERY_CORE, 'onnxruntime', 'torch')}; {busy(watch.others())}; "
        f"`python benchmarks/streaming.py --steps {steps} --only {' '.join(arguments.only)}`.",
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "streaming.md").write_text("\n".join(page))
    print("\n".join(page))


def rows(preset: str, steps: int) -> Iterator[str]:
    net = BSMamba2.untrained(preset)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{preset}.safetensors")
        net.save(path)
        engine = open_step_engine(path, "cpu")
    for pair in SCHEDULES[preset]:
        yield row(preset, net, engine, Schedule(*pair), steps)


def row(preset: str, net: BSMamba2, engine: StepEngine, schedule: Schedule, steps: int) -> str:
    config = net.config
    shape = (1, config.channels, schedule.block + schedule.lookahead, config.bins, 2)
    spectrum = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    block, lookahead = np.split(spectrum, [schedule.block], axis=2)
    snr = check_step(net, engine, block, lookahead)
    taken = median_s(lambda: engine.step(block, lookahead), steps)
    lasts = schedule.block * config.hop / config.sample_rate
    ahead = schedule.lookahead * config.hop / config.sample_rate
    computed_per_frame = (schedule.block + schedule.lookahead) / schedule.block
    return (
        f"| {preset} | {lasts * 1e3:.0f} ms | {ahead * 1e3:.0f} ms | {computed_per_frame:g} | "
        f"{taken * 1e3:.0f} ms | {lasts / taken:.2f} | {'yes' if taken < lasts else 'no'} | "
        f"{snr:.0f} dB |"
    )


def check_step(
    net: BSMamba2, engine: StepEngine, block: np.ndarray, lookahead: np.ndarray
) -> float:
    """The SNR in dB of the first step against the network."""
    engine.reset()
    found, _ = engine.step(block, lookahead)
    with torch.inference_mode():
        wanted, *_ = net.step(torch.from_numpy(block), torch.from_numpy(lookahead), net.start())
    return checked_db(wanted.numpy(), found)


def checked_db(wanted: np.ndarray, found: np.ndarray) -> float:
    snr = snr_db(wanted, found)
    assert snr >= LEAST_DB, f"{snr:.1f} dB from the network"
    return snr


def median_s(run: Callable[[], object], repeat: int) -> float:
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return median(taken)


if __name__ == "__main__":
    main()
