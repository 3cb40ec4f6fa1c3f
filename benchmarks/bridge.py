"""The overhead of the bridge, and of one callback of the plugin.

    python -m benchmarks.bridge          # writes benchmarks/results/bridge.md

The engine is a shipped graph in chunks of a second. The time outside the engine is the processor
time of the calling thread, so that other programs do not count. The bridge's overhead is that time
minus the time that a Separator without the bridge spends outside the engine. Every output is
compared with the Separator's. Needs the extras cpu and pedalboard.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pedalboard
from pedalboard import Gain, Pedalboard, Plugin

from benchmarks.arguments import argument_parser
from benchmarks.machine import EVERY_CORE, Watch, background_load, conditions
from benchmarks.pages import RESULTS
from benchmarks.weights import random_model
from bsmamba2 import Manifest, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import CPU
from bsmamba2.engines.protocols import Engine
from bsmamba2.models.open_model import open_model
from bsmamba2_pedalboard import Board, Separate, SeparationEffect, plugin_path

RATE = 44100
Run = Callable[[Audio], npt.NDArray[np.float32]]


class TimedEngine:
    """An engine with another chunk length that adds up the time of its runs."""

    def __init__(self, engine: Engine, chunk: int) -> None:
        self._engine = engine
        self.manifest: Manifest = engine.manifest.replace(chunk=chunk, overlap=0.0)
        self.device = engine.device
        self.seconds = self.thread_seconds = 0.0

    def run(self, chunk: Audio) -> Audio:
        start, thread_start = time.perf_counter(), time.thread_time()
        stems = self._engine.run(chunk)
        self.seconds += time.perf_counter() - start
        self.thread_seconds += time.thread_time() - thread_start
        return stems


def main() -> None:
    parser = argument_parser("bridge", __doc__)
    parser.add_argument(
        "--seconds", type=int, default=20, help="The length of the audio. Default: 20."
    )
    parser.add_argument("--rounds", type=int, default=5, help="Default: 5.")
    parser.add_argument(
        "--size", default="medium", help="The size of the graph, tiny to paper. Default: medium."
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = TimedEngine(
            open_model(random_model(arguments.size, Path(folder))).chunk_engine(CPU), chunk=RATE
        )
    random = np.random.default_rng(0)
    audio = random.uniform(-0.5, 0.5, (2, arguments.seconds * RATE)).astype(np.float32)
    watch = Watch()
    table = [
        "| one second of audio | in the engine | outside it | overhead of the bridge | share |",
        "|---|---|---|---|---|",
        *overheads(engine, audio, arguments.rounds),
    ]
    calls = [
        "| one callback, 512 stereo samples | time |",
        "|---|---|",
        *callbacks(audio, arguments.rounds),
    ]
    options = f"--seconds {arguments.seconds} --rounds {arguments.rounds} --size {arguments.size}"
    text = (
        f"{arguments.seconds} s of stereo noise in chunks of 1 s, graph `{arguments.size}`, random "
        f"weights; medians of {arguments.rounds} rounds, each of which runs every row; outputs "
        "agree to 1e-6; overhead: time outside the engine minus that of the first row; share: "
        "overhead divided by the rest of the row's time; "
        f"{conditions(EVERY_CORE, 'onnxruntime', 'pedalboard')}; "
        f"{background_load(watch.background_cores())}; `python -m benchmarks.bridge {options}`."
    )
    page = "\n".join(["# Overhead of the bridge", "", *table, "", *calls, "", text, ""])
    (RESULTS / "bridge.md").write_text(page)
    print(page)


def overheads(engine: TimedEngine, audio: Audio, rounds: int) -> list[str]:
    """Returns the rows of the first table."""
    separator = Separator(engine)
    native = Pedalboard([Gain(0), Separate(separator), Gain(0)])

    def streamed(effect: SeparationEffect | Board) -> npt.NDArray[np.float32]:
        parts = [
            effect(audio[:, start : start + 8192], RATE, reset=False)
            for start in range(0, audio.shape[1], 8192)
        ]
        return np.concatenate([*parts, effect.flush()], axis=1)

    effect, board = SeparationEffect(separator), Board([Gain(0), SeparationEffect(separator)])
    runs: dict[str, Run] = {
        "`Separator`, without the bridge": lambda audio: separator(audio, RATE)["vocals"],
        "`SeparationEffect`": lambda audio: effect(audio, RATE),
        "`Board`, in parts of 8192": lambda audio: streamed(board),
        "`Pedalboard([Gain, Separate, Gain])`, blocks of 8192": lambda audio: native(audio, RATE),
        "the same, blocks of 512": lambda audio: native(audio, RATE, 512),
    }
    expected = separator(audio, RATE)["vocals"]  # also the warm-up
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            engine.seconds = engine.thread_seconds = 0.0
            start = time.thread_time()
            output = run(audio)
            outside = time.thread_time() - start - engine.thread_seconds
            figures[name].append((engine.seconds, outside))
            # Native containers pad the last chunk with silence, so the end differs.
            same = slice(0, audio.shape[1] - 2 * RATE)
            np.testing.assert_allclose(output[:, same], expected[:, same], rtol=0, atol=1e-6)
    seconds = audio.shape[1] / RATE
    without_bridge = [outside for _, outside in next(iter(figures.values()))]
    rows = []
    for name, pairs in figures.items():
        inside = 1000 * statistics.median(pair[0] for pair in pairs) / seconds
        outside = 1000 * statistics.median(pair[1] for pair in pairs) / seconds
        added = (pair[1] - base for pair, base in zip(pairs, without_bridge, strict=True))
        overhead = 1000 * statistics.median(added) / seconds
        share = overhead / (inside + outside - overhead)
        rows.append(
            f"| {name} | {inside:.0f} ms | {outside:.2f} ms | {overhead:+.2f} ms | {share:+.2%} |"
        )
    return rows


class IdleEngine:
    """An engine that never runs, because its chunk is longer than the audio."""

    device = CPU
    manifest = Manifest(name="idle", chunk=1 << 24, overlap=0.0)

    def run(self, chunk: Audio) -> Audio:
        raise AssertionError("the audio filled a chunk")


def callbacks(audio: Audio, rounds: int) -> list[str]:
    """Returns the rows of the second table."""
    plugins: dict[str, Plugin] = {
        "Pedalboard's `Gain`": Gain(0),
        "`Separate`, no chunk due": Separate(IdleEngine()),
        "the plugin as in a DAW, without a server": pedalboard.load_plugin(str(plugin_path())),
    }
    blocks = audio.shape[1] // 512
    rows = []
    for name, plugin in plugins.items():
        times = []
        for _ in range(rounds):
            plugin.reset()
            start = time.thread_time()
            # One call without a flush, so that only callbacks count.
            plugin(audio[:, : 512 * blocks], RATE, 512, reset=False)
            times.append((time.thread_time() - start) / blocks)
        rows.append(f"| {name} | {1e6 * statistics.median(times):.1f} µs |")
    return rows


if __name__ == "__main__":
    main()
