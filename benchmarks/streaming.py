"""The time of a stream's steps against real time.

    python -m benchmarks.streaming [--steps 3] [--only small]

Times pairs of block and lookahead for each size. A step must take less time than its block lasts.
A stream does (block + lookahead) / block times the work of a run on the whole signal. The first
step of every schedule is compared with the network before any step is timed. Writes
benchmarks/results/streaming.md. Needs the extras cpu and network.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.arguments import argument_parser
from benchmarks.machine import EVERY_CORE, Watch, background_load, conditions
from benchmarks.pages import RESULTS
from bsmamba2.audio.array import Audio
from bsmamba2.audio.schedule import Schedule
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices import kernel
from bsmamba2.devices.device import CPU
from bsmamba2.engines.step_engine import StepEngine
from bsmamba2.models.open_model import open_model
from bsmamba2_network import BSMamba2

SCHEDULES = {
    "small": [(1, 1), (2, 4), (4, 4), (10, 10), (20, 20), (40, 40), (40, 10)],
    "medium": [(1, 1), (5, 10), (10, 10), (25, 25), (50, 50), (100, 100), (100, 25)],
    "paper": [(10, 10), (50, 25), (100, 25), (100, 100)],
}
MIN_SNR_DB = 90


def main() -> None:
    parser = argument_parser("streaming", __doc__)
    parser.add_argument(
        "--steps", type=int, default=3, help="Steps to time per schedule. Default: 3."
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SCHEDULES,
        default=list(SCHEDULES),
        help="The sizes to time. Default: all.",
    )
    arguments = parser.parse_args()
    steps = arguments.steps
    scan = "the kernel" if kernel.library() else "plain operators"
    watch = Watch()
    page = [
        "# Steps of a stream",
        "",
        "| size | block | lookahead | work | time of a step | × real time | fast enough | SNR |",
        "|---|---|---|---|---|---|---|---|",
        *(row for preset in arguments.only for row in rows(preset, steps)),
        "",
        f"Random weights, one stereo stream; the median of {steps} steps, spectra in and out; work "
        f"is (block + lookahead) / block; SNR of the first step against the network. Scan: {scan}; "
        f"{conditions(EVERY_CORE, 'onnxruntime', 'torch')}; "
        f"{background_load(watch.background_cores())}; "
        f"`python -m benchmarks.streaming --steps {steps} --only {' '.join(arguments.only)}`.",
        "",
    ]
    (RESULTS / "streaming.md").write_text("\n".join(page))
    print("\n".join(page))


def rows(preset: str, steps: int) -> Iterator[str]:
    net = BSMamba2.untrained(preset)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{preset}.safetensors")
        net.save(path)
        engine = open_model(path).step_engine(CPU)
    for pair in SCHEDULES[preset]:
        yield row(preset, net, engine, Schedule(*pair), steps)


def row(preset: str, net: BSMamba2, engine: StepEngine, schedule: Schedule, steps: int) -> str:
    config = net.config
    shape = (1, config.channels, schedule.block + schedule.lookahead, config.bins, 2)
    spectrum = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    block, lookahead = np.split(spectrum, [schedule.block], axis=2)
    snr = check_step(net, engine, block, lookahead)
    elapsed_s = median_s(lambda: engine.step(block, lookahead), steps)
    block_s = schedule.block * config.hop / config.sample_rate
    lookahead_s = schedule.lookahead * config.hop / config.sample_rate
    work = (schedule.block + schedule.lookahead) / schedule.block
    return (
        f"| {preset} | {block_s * 1e3:.0f} ms | {lookahead_s * 1e3:.0f} ms | "
        f"{work:g} | {elapsed_s * 1e3:.0f} ms | {block_s / elapsed_s:.2f} | "
        f"{'yes' if elapsed_s < block_s else 'no'} | {snr:.0f} dB |"
    )


def check_step(net: BSMamba2, engine: StepEngine, block: Audio, lookahead: Audio) -> float:
    """Checks the first step with :func:`require_snr` and returns its SNR in dB."""
    engine.reset()
    got, _ = engine.step(block, lookahead)
    with torch.inference_mode():
        expected, *_ = net.step(torch.from_numpy(block), torch.from_numpy(lookahead), net.start())
    return require_snr(expected.numpy(), got)


def require_snr(expected: Audio, got: Audio) -> float:
    """Returns the SNR in dB; raises an AssertionError if it is below :data:`MIN_SNR_DB`."""
    snr = snr_db(expected, got)
    assert snr >= MIN_SNR_DB, f"only {snr:.1f} dB SNR against the network"
    return snr


def median_s(run: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times)


if __name__ == "__main__":
    main()
