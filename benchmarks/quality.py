"""How well the shipped model separates: whole songs, streams by their latency, and long streams.

    python benchmarks/quality.py SET [-m MODEL] [--songs N]

SET is what `bsmamba2 dataset` makes, or any folder that `bsmamba2 evaluate` takes. Writes
benchmarks/results/quality/ (the files of `bsmamba2 evaluate`, and the streams' curve),
benchmarks/results/quality.md, and the table of README.md. Needs the extras cpu and training; about
half an hour on two cores, most of it BSS Eval.
"""

from __future__ import annotations

import argparse
import runpy
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from machine import EVERY_CORE, about

from bsmamba2 import Separator
from bsmamba2_training import evaluation, layout, results
from bsmamba2_training.evaluation import LEAKAGE, Estimator, Summary
from bsmamba2_training.metrics import usdr_db
from bsmamba2_training.voices import SAMPLE_RATE

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
BEGIN, END = "<!-- benchmarks/quality.py -->", "<!-- end of quality -->"
LOOKAHEADS_MS = (50, 100, 250, 500, 1000)
LONG_LOOKAHEAD_MS = 250
SHOWN = {
    "usdr vocals": "uSDR, vocals",
    "voice 1-2 s": "uSDR, voices of 1–2 s",
    LEAKAGE: "left where no voice is",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-m", "--model", type=Path, help="Default: the shipped one.")
    parser.add_argument("--songs", type=int, help="At most so many.")
    arguments = parser.parse_args()
    separator = Separator(arguments.model)
    songs = layout.songs(arguments.dataset, "test")[: arguments.songs]
    name = separator.manifest.name
    estimators = evaluation.baseline_estimators()
    estimators[name] = evaluation.model_estimator(separator, None)
    scores = evaluation.evaluate(songs, estimators, jobs=2, progress=print)
    more = evaluation.model_protocol(separator, arguments.model, None)
    protocol = evaluation.protocol(name, arguments.dataset, len(songs), split="test", **more)
    whole = results.write(scores, protocol, RESULTS / "quality")
    summary = evaluation.summarise(scores)
    streams = [(stream_ms(separator, ahead), ahead) for ahead in LOOKAHEADS_MS]
    measured = [(ms, stream_scores(separator, songs, ahead)) for ms, ahead in streams]
    draw(measured, summary[name], RESULTS / "quality/streams.png")
    first, tenth = minutes(separator, songs)
    draw_real_song(arguments.model, RESULTS / "quality/farewell.png")
    how = f"{about(EVERY_CORE, 'onnxruntime')}; `python benchmarks/quality.py SET`"
    page = [
        "# What the shipped model separates",
        "",
        "On the test split of the free data set: synthetic songs, speech turned into singing over "
        "game music, of speakers and packages that no training item had. Silence stands beside "
        "the model because under a quiet voice it already improves on the mixture.",
        "",
        whole,
        "![Scores](quality/plot.png)",
        "",
        "## Streams",
        "The same songs, pushed second by second; a block as long as the lookahead.",
        "",
        f"| latency | lookahead | {' | '.join(SHOWN.values())} |",
        f"|---|---|{'---|' * len(SHOWN)}",
        *(
            f"| {ms:.0f} ms | {ahead} ms | {cells(row)} |"
            for (ms, ahead), (_, row) in zip(streams, measured, strict=True)
        ),
        f"| whole song | | {cells(summary[name])} |",
        "",
        "![uSDR by latency](quality/streams.png)",
        "",
        f"The same minute at the start of a stream and after nine others, lookahead "
        f"{LONG_LOOKAHEAD_MS} ms: {first:.2f} and {tenth:.2f} dB.",
        "",
        "## A real song",
        "Half a minute of “Farewell” by Obsidian Shell (CC-BY-SA-3.0), with a voice from 52 s on; "
        "to be heard by `python examples/before_after.py "
        "$(bash examples/real_song.sh FOLDER farewell) FOLDER`.",
        "",
        "![Spectrograms of the song, the vocals and the instrumental](quality/farewell.png)",
        "",
        f"{how}.",
        "",
    ]
    (RESULTS / "quality.md").write_text("\n".join(page))
    into_readme(summary, name, how)


def stream_ms(separator: Separator, lookahead_ms: float) -> float:
    """Latency of a stream, ms."""
    stream = separator.stream(SAMPLE_RATE, 2, lookahead_ms=lookahead_ms)
    return 1000 * stream.latency_samples / SAMPLE_RATE


def stream_scores(
    separator: Separator, songs: Sequence[layout.Song], lookahead_ms: float
) -> dict[str, Summary]:
    estimator: Estimator = evaluation.stream_estimator(separator, None, lookahead_ms)
    scores = evaluation.evaluate(songs, {"stream": estimator}, csdr=False)
    print(f"stream with {lookahead_ms} ms")
    return evaluation.summarise(scores)["stream"]


def minutes(separator: Separator, songs: Sequence[layout.Song]) -> tuple[float, float]:
    """uSDR of a minute's vocals at the start of a stream, and of the same one as its tenth."""
    stems = [song.stems() for song in songs]
    mixture = np.concatenate([mixture for mixture, _, _ in stems], axis=1)
    vocals = np.concatenate([vocals for _, vocals, _ in stems], axis=1)
    minute = 60 * SAMPLE_RATE
    mixture, vocals = (np.tile(audio, 9)[:, : 9 * minute] for audio in (mixture, vocals))
    mixture = np.concatenate([mixture, mixture[:, :minute]], axis=1)
    stream = evaluation.stream_estimator(separator, None, LONG_LOOKAHEAD_MS)
    estimate, _ = stream(songs[0], mixture, mixture)
    wanted = vocals[:, :minute]
    return usdr_db(wanted, estimate[:, :minute]), usdr_db(wanted, estimate[:, -minute:])


def draw_real_song(model: Path | None, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = ["bash", str(ROOT / "examples/real_song.sh"), folder, "farewell"]
        found = subprocess.run(script, check=True, capture_output=True, text=True).stdout.strip()
        asked = [found, folder, "--seconds", "40", "70", *(["-m", str(model)] if model else [])]
        runpy.run_path(str(ROOT / "examples/before_after.py"))["main"](asked)
        shutil.copy(Path(folder) / "spectrograms.png", path)


def cells(row: dict[str, Summary]) -> str:
    return " | ".join(f"{row[metric].median:.2f} dB" if metric in row else "" for metric in SHOWN)


def draw(streams: list[tuple[float, dict[str, Summary]]], whole: dict[str, Summary], path: Path):
    """uSDR against latency, with whole songs as what it runs towards."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for metric in ("usdr vocals", "voice 1-2 s"):
        if metric not in whole:
            continue
        ms = [latency for latency, row in streams if metric in row]
        medians = [row[metric].median for _, row in streams if metric in row]
        (line,) = axis.plot(ms, medians, "o-", label=SHOWN[metric])
        axis.axhline(whole[metric].median, color=line.get_color(), linestyle=":")
    axis.set_xscale("log")
    axis.set_xlabel("latency, ms (dotted: whole songs)")
    axis.set_ylabel("dB, median")
    axis.legend()
    figure.savefig(path)
    plt.close(figure)


def into_readme(summary: dict[str, dict[str, Summary]], name: str, how: str) -> None:
    """The README's table: a row a system, the medians and what they gain on the mixture."""
    metrics = ("usdr vocals", "csdr vocals", "csdr instrumental", "voice 1-2 s", LEAKAGE)
    heads = ("uSDR vocals", "cSDR vocals", "cSDR instrumental", "voices of 1–2 s", "where no voice")
    rows = []
    for system, found in summary.items():
        shown = [f"{found[m].median:.1f}" if m in found else "" for m in metrics]
        rows.append(f"| {f'**{name}**' if system == name else system} | {' | '.join(shown)} |")
    table = "\n".join(
        [
            f"| dB, median of songs | {' | '.join(heads)} |",
            f"|---{'|---' * len(heads)}|",
            *rows,
            "",
            f"[All of it](benchmarks/results/quality.md); {how}.",
        ]
    )
    readme = (ROOT / "README.md").read_text()
    before, _, rest = readme.partition(BEGIN)
    (ROOT / "README.md").write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
