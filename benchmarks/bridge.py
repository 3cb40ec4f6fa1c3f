"""What the bridge costs beside the engine, and a callback of the plugin beside Pedalboard's own.

    python benchmarks/bridge.py          # writes benchmarks/results/bridge.md

The engine is a shipped graph in chunks of a second. What is beside it is the processor's time of
the calling thread outside the engine, so that other programs do not count; the bridge's own is that
less the same of a Separator without the bridge. Every output is compared. Needs the extras cpu and
pedalboard.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pedalboard
from machine import EVERY_CORE, Watch, about, busy
from pedalboard import Gain, Pedalboard
from weights import random_model

from bsmamba2 import Manifest, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.engines.protocols import Engine
from bsmamba2.models.model import open_engine
from bsmamba2_pedalboard import Board, Separate, SeparationEffect, plugin_path

ROOT = Path(__file__).parent.parent
RATE = 44100
Way = Callable[[Audio], npt.NDArray[np.float32]]


class Timed:
    """An engine in chunks of another length, that adds up its own time."""

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="of sound")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="medium", help="of the graph: tiny to paper")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = Timed(open_engine(random_model(arguments.size, Path(folder)), "cpu"), chunk=RATE)
    random = np.random.default_rng(0)
    audio = random.uniform(-0.5, 0.5, (2, arguments.seconds * RATE)).astype(np.float32)
    watch = Watch()
    table = [
        "| a second of sound | in the engine | beside it | the bridge's own | share |",
        "|---|---|---|---|---|",
        *overheads(engine, audio, arguments.rounds),
    ]
    calls = [
        "| one callback, 512 stereo samples | time |",
        "|---|---|",
        *callbacks(audio, arguments.rounds),
    ]
    asked = f"--seconds {arguments.seconds} --rounds {arguments.rounds} --size {arguments.size}"
    text = (
        f"{arguments.seconds} s of stereo noise in chunks of 1 s, the graph {arguments.size} with "
        f"random weights, medians of {arguments.rounds} rounds in turn, outputs equal to 1e-6; "
        f"{about(EVERY_CORE, 'onnxruntime', 'pedalboard')}; {busy(watch.others())}; "
        f"`python benchmarks/bridge.py {asked}`."
    )
    page = "\n".join(["# The bridge's own time", "", *table, "", *calls, "", text, ""])
    (ROOT / "benchmarks/results/bridge.md").write_text(page)
    print(page)


def overheads(engine: Timed, audio: Audio, rounds: int) -> list[str]:
    separator = Separator(engine)
    native = Pedalboard([Gain(0), Separate(separator), Gain(0)])

    def streamed(effect: SeparationEffect | Board) -> npt.NDArray[np.float32]:
        parts = [
            effect(audio[:, start : start + 8192], RATE, reset=False)
            for start in range(0, audio.shape[1], 8192)
        ]
        return np.concatenate([*parts, effect.flush()], axis=1)

    effect, board = SeparationEffect(separator), Board([Gain(0), SeparationEffect(separator)])
    ways: dict[str, Way] = {
        "`Separator`, nothing of the bridge": lambda audio: separator(audio, RATE)["vocals"],
        "`SeparationEffect`": lambda audio: effect(audio, RATE),
        "`Board`, in parts of 8192": lambda audio: streamed(board),
        "`Pedalboard([Gain, Separate, Gain])`, blocks of 8192": lambda audio: native(audio, RATE),
        "the same, blocks of 512": lambda audio: native(audio, RATE, 512),
    }
    expected = separator(audio, RATE)["vocals"]  # which warms up as well
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            engine.seconds = engine.thread_seconds = 0.0
            start = time.thread_time()
            output = way(audio)
            beside = time.thread_time() - start - engine.thread_seconds
            figures[name].append((engine.seconds, beside))
            # Native containers separate the last chunk beside silence.
            same = slice(0, audio.shape[1] - 2 * RATE)
            np.testing.assert_allclose(output[:, same], expected[:, same], rtol=0, atol=1e-6)
    seconds = audio.shape[1] / RATE
    bare = [beside for _, beside in next(iter(figures.values()))]
    rows = []
    for name, pairs in figures.items():
        inside = 1000 * statistics.median(pair[0] for pair in pairs) / seconds
        beside = 1000 * statistics.median(pair[1] for pair in pairs) / seconds
        more = (pair[1] - other for pair, other in zip(pairs, bare, strict=True))
        own = 1000 * statistics.median(more) / seconds
        share = own / (inside + beside - own)
        rows.append(
            f"| {name} | {inside:.0f} ms | {beside:.2f} ms | {own:+.2f} ms | {share:+.2%} |"
        )
    return rows


class Idle:
    """An engine of so long a chunk that it is never run."""

    device = "cpu"
    manifest = Manifest(name="idle", chunk=1 << 24, overlap=0.0)

    def run(self, chunk: Audio) -> Audio:
        raise AssertionError("the chunk was meant to be too long")


def callbacks(audio: Audio, rounds: int) -> list[str]:
    plugins = {
        "Pedalboard's `Gain`": Gain(0),
        "`Separate`, no chunk due": Separate(Idle()),
        "the plugin as in a DAW, no server": pedalboard.load_plugin(str(plugin_path())),
    }
    blocks = audio.shape[1] // 512
    rows = []
    for name, plugin in plugins.items():
        times = []
        for _ in range(rounds):
            plugin.reset()
            start = time.thread_time()
            # The whole in one call, which never flushes, so that only callbacks count.
            plugin(audio[:, : 512 * blocks], RATE, 512, reset=False)
            times.append((time.thread_time() - start) / blocks)
        rows.append(f"| {name} | {1e6 * statistics.median(times):.1f} µs |")
    return rows


if __name__ == "__main__":
    main()
