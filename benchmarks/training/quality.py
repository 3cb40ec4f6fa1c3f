"""How well a model separates songs, streams of several latencies, long streams and real songs.

    python -m benchmarks.training.quality SET [-m MODEL] [--songs N]

SET is a data set written by `bsmamba2 dataset`. After all measurements, this writes
benchmarks/results/quality/ (the files of `bsmamba2 evaluate`, the plot of the streams and the
spectrograms of the real songs), benchmarks/results/quality.md and, for the shipped model on all
songs, the table in README.md. Needs the extras cpu and training, and apt-get with a network for the
real songs; about half an hour on two cores, most of it BSS Eval.
"""

from __future__ import annotations

import argparse
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.arguments import argument_parser
from benchmarks.machine import EVERY_CORE, conditions
from benchmarks.pages import RESULTS, ROOT, replace_in_readme
from bsmamba2 import Separator
from bsmamba2_training import evaluation, layout, results
from bsmamba2_training.evaluation import LEAKAGE, Estimator, Summary
from bsmamba2_training.metrics import usdr_db
from bsmamba2_training.protocol import evaluation_protocol, model_protocol
from bsmamba2_training.voices import SAMPLE_RATE

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BEGIN, END = "<!-- benchmarks/training/quality.py -->", "<!-- end of quality -->"
LOOKAHEADS_MS = (50, 100, 250, 500, 1000)
LONG_LOOKAHEAD_MS = 250
REAL_SONGS = {
    "farewell": (
        "A real song",
        (40, 70),
        "“Farewell” by Obsidian Shell (CC-BY-SA-3.0), where singing starts at 52 s",
    ),
    "feelings": (
        "A real instrumental",
        (30, 60),
        "“Feelings” by Carlos Viola Iborra (free to use, copy and sell), which has no singing: "
        "everything in the vocals is leakage",
    ),
}
"""The songs of examples/real_song.sh: heading, seconds to draw, description."""
COLUMNS = {
    "usdr vocals": "uSDR, vocals",
    "voice 1-2 s": "uSDR, voices of 1–2 s",
    LEAKAGE: "leakage where nobody sings",
}


def main() -> None:
    parser = argument_parser("training.quality", __doc__)
    parser.add_argument("dataset", type=Path, help="A data set written by bsmamba2 dataset.")
    parser.add_argument("-m", "--model", type=Path, help="Default: the shipped model.")
    parser.add_argument("--songs", type=int, help="The maximum number of songs. Default: all.")
    arguments = parser.parse_args()
    separator = Separator(arguments.model)
    songs = layout.songs(arguments.dataset, "test")[: arguments.songs]
    with tempfile.TemporaryDirectory() as folder:
        # First, because only this needs the internet, and the rest takes half an hour.
        for song in REAL_SONGS:
            draw_real_song(song, arguments.model, Path(folder))
        measure(separator, songs, arguments, Path(folder))


def measure(
    separator: Separator,
    songs: Sequence[layout.Song],
    arguments: argparse.Namespace,
    pictures: Path,
) -> None:
    """Scores songs and streams, then writes all pages and copies the real songs' pictures."""
    name = evaluation.system_name(separator.manifest.name, "model")
    estimators = evaluation.baseline_estimators()
    estimators[name] = evaluation.model_estimator(separator, None)
    scores = evaluation.evaluate(songs, estimators, jobs=2, progress=print)
    summary = evaluation.summarise(scores)
    streams = [(stream_ms(separator, ms), ms) for ms in LOOKAHEADS_MS]
    measured = [(ms, stream_scores(separator, songs, lookahead)) for ms, lookahead in streams]
    first, tenth = minute_usdr(separator, songs)

    model = [] if arguments.model is None else ["-m", str(arguments.model)]
    limit = [] if arguments.songs is None else ["--songs", str(arguments.songs)]
    command = shlex.join(["python", "-m", "benchmarks.training.quality", "SET", *model, *limit])
    about = f"{conditions(EVERY_CORE, 'onnxruntime')}; `{command}`"
    details = model_protocol(separator, arguments.model)
    protocol = evaluation_protocol(
        [name], arguments.dataset, len(songs), {name: details}, split="test"
    )
    table = results.write(scores, protocol, RESULTS / "quality")
    draw(measured, summary[name], RESULTS / "quality/streams.png")
    for song in REAL_SONGS:
        shutil.copy(pictures / f"{song}.png", RESULTS / "quality")
    page = [
        f"# Quality of {f'`{name}`' if model else 'the shipped model'}",
        "",
        f"{f'{len(songs)} songs of the' if limit else 'The'} test split of the free data set: "
        "synthetic songs (speech turned into singing over game music), from speakers and packages "
        "that are not in the training data. Silence is in the table because for a quiet voice it "
        "scores better than the mixture.",
        "",
        table,
        "![Scores](quality/plot.png)",
        "",
        "## Goals",
        "The figures are medians. An improvement over the mixture is taken per song, or per "
        "stretch of singing.",
        "",
        "| goal | measured | reached |",
        "|---|---|---|",
        *goals(summary[name], first, tenth),
        "",
        "## Streams",
        "The same songs, pushed one second at a time; the block is as long as the lookahead.",
        "",
        f"| latency | lookahead | {' | '.join(COLUMNS.values())} |",
        f"|---|---|{'---|' * len(COLUMNS)}",
        *(
            f"| {ms:.0f} ms | {lookahead} ms | {cells(row)} |"
            for (ms, lookahead), (_, row) in zip(streams, measured, strict=True)
        ),
        f"| whole song | | {cells(summary[name])} |",
        "",
        "![uSDR by latency](quality/streams.png)",
        "",
        f"uSDR of the same minute at the start of a stream and as its tenth minute, lookahead "
        f"{LONG_LOOKAHEAD_MS} ms: {first:.2f} and {tenth:.2f} dB.",
        "",
    ]
    for song, (heading, (start, stop), description) in REAL_SONGS.items():
        listen = f"examples/before_after.py $(bash examples/real_song.sh FOLDER {song}) FOLDER"
        page += [
            f"## {heading}",
            f"Seconds {start} to {stop} of {description}. To listen: "
            f"`{' '.join(['python', listen, *model])}`.",
            "",
            f"![Spectrograms of the song, the vocals and the instrumental](quality/{song}.png)",
            "",
        ]
    (RESULTS / "quality.md").write_text("\n".join([*page, f"{about}.", ""]))
    if not model and not limit:
        replace_in_readme(BEGIN, END, readme_table(summary, name, about))


def goals(scores: dict[str, Summary], first: float, tenth: float) -> list[str]:
    """Returns one row for each goal of the project: the figure, and whether it is reached.

    Args:
        scores: the model's scores.
        first, tenth: the result of :func:`minute_usdr`, dB.
    """

    def improvement(metric: str) -> float:
        value = scores[metric].improvement if metric in scores else None
        return float("nan") if value is None else value  # NaN reaches no goal

    rows = [
        ("uSDR of the vocals at least 8 dB over the mixture", improvement("usdr vocals"), 8),
        ("voices of 1–2 s at least 6 dB over the mixture", improvement("voice 1-2 s"), 6),
        (
            "whole songs at least 30 dB below the mixture where nobody sings",
            -scores[LEAKAGE].median if LEAKAGE in scores else float("nan"),
            30,
        ),
    ]
    lines = [
        f"| {goal} | {measured:.2f} dB | {'yes' if measured >= minimum else 'no'} |"
        for goal, measured, minimum in rows
    ]
    difference = abs(tenth - first)
    reached = "yes" if difference <= 0.5 else "no"
    return [
        *lines,
        f"| minute ten of a stream within 0.5 dB of minute one | {difference:.2f} dB | {reached} |",
    ]


def stream_ms(separator: Separator, lookahead_ms: float) -> float:
    """Returns the latency of a stream in ms."""
    stream = separator.stream(SAMPLE_RATE, 2, lookahead_ms=lookahead_ms)
    return float(1000 * stream.latency_samples / SAMPLE_RATE)


def stream_scores(
    separator: Separator, songs: Sequence[layout.Song], lookahead_ms: float
) -> dict[str, Summary]:
    estimator: Estimator = evaluation.stream_estimator(separator, None, lookahead_ms)
    scores = evaluation.evaluate(songs, {"stream": estimator}, csdr=False)
    print(f"stream with {lookahead_ms} ms")
    return evaluation.summarise(scores)["stream"]


def minute_usdr(separator: Separator, songs: Sequence[layout.Song]) -> tuple[float, float]:
    """Returns the uSDR of a minute's vocals at the start of a stream and as its tenth minute."""
    stems = [song.stems() for song in songs]
    mixture = np.concatenate([mixture for mixture, _, _ in stems], axis=1)
    vocals = np.concatenate([vocals for _, vocals, _ in stems], axis=1)
    minute = 60 * SAMPLE_RATE
    times = -(-9 * minute // mixture.shape[1])
    mixture, vocals = (np.tile(audio, times)[:, : 9 * minute] for audio in (mixture, vocals))
    mixture = np.concatenate([mixture, mixture[:, :minute]], axis=1)
    stream = evaluation.stream_estimator(separator, None, LONG_LOOKAHEAD_MS)
    estimate, _ = stream(songs[0], mixture, mixture)
    expected = vocals[:, :minute]
    return usdr_db(expected, estimate[:, :minute]), usdr_db(expected, estimate[:, -minute:])


def draw_real_song(song: str, model: Path | None, folder: Path) -> None:
    """Writes ``folder/SONG.png``, spectrograms; ends the program if the song cannot be fetched."""
    script = ["bash", str(ROOT / "examples/real_song.sh"), str(folder), song]
    run = subprocess.run(script, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{song} could not be fetched from Debian by apt-get: {run.stderr.strip()}")
    _, (start, stop), _ = REAL_SONGS[song]
    options = [run.stdout.strip(), str(folder), "--seconds", str(start), str(stop)]
    options += [] if model is None else ["-m", str(model)]
    runpy.run_path(str(ROOT / "examples/before_after.py"))["main"](options)
    (folder / "spectrograms.png").rename(folder / f"{song}.png")


def cells(row: dict[str, Summary]) -> str:
    return " | ".join(f"{row[metric].median:.2f} dB" if metric in row else "" for metric in COLUMNS)


def draw(
    streams: list[tuple[float, dict[str, Summary]]], whole: dict[str, Summary], path: Path
) -> None:
    """Plots uSDR against latency, with the scores of whole songs as dotted lines."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for metric in ("usdr vocals", "voice 1-2 s"):
        if metric not in whole:
            continue
        ms = [latency for latency, row in streams if metric in row]
        medians = [row[metric].median for _, row in streams if metric in row]
        (line,) = axis.plot(ms, medians, "o-", label=COLUMNS[metric])
        axis.axhline(whole[metric].median, color=line.get_color(), linestyle=":")
    axis.set_xscale("log")
    axis.set_xlabel("latency, ms (dotted: whole songs)")
    axis.set_ylabel("dB, median")
    axis.legend()
    figure.savefig(path)
    plt.close(figure)


def readme_table(summary: dict[str, dict[str, Summary]], name: str, about: str) -> str:
    """Returns README's table: a row per system, with the model's improvement over the mixture."""
    columns = {
        "usdr vocals": "uSDR vocals",
        "csdr vocals": "cSDR vocals",
        "csdr instrumental": "cSDR instrumental",
        "voice 1-2 s": "voices of 1–2 s",
        LEAKAGE: "leakage where nobody sings",
    }
    rows = []
    for system, scores in summary.items():
        cells = []
        for metric in columns:
            cells.append(f"{scores[metric].median:.1f}" if metric in scores else "")
            # Leakage is relative to the mixture already.
            if system == name and cells[-1] and metric != LEAKAGE:
                cells[-1] += f" ({scores[metric].improvement:+.1f})"
        rows.append(f"| {f'**{name}**' if system == name else system} | {' | '.join(cells)} |")
    return "\n".join(
        [
            f"| dB, median of songs (over the mixture) | {' | '.join(columns.values())} |",
            f"|---{'|---' * len(columns)}|",
            *rows,
            "",
            f"[All results](benchmarks/results/quality.md); {about}.",
        ]
    )


if __name__ == "__main__":
    main()
