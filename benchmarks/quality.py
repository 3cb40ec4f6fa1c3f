"""How well a model separates: whole songs, streams by their latency, long streams, real songs.

    python benchmarks/quality.py SET [-m MODEL] [--songs N]

SET is what `bsmamba2 dataset` makes. Writes benchmarks/results/quality/ (the files of `bsmamba2
evaluate`, the streams' curve and the real songs' spectrograms), benchmarks/results/quality.md and,
for the shipped model on all songs, the table of README.md; nothing before all is measured. Needs
the extras cpu and training, and apt-get with a network for the real songs; about half an hour on
two cores, most of it BSS Eval.
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
REAL_SONGS = {
    "farewell": (
        "A real song",
        (40, 70),
        "“Farewell” by Obsidian Shell (CC-BY-SA-3.0), with a voice from 52 s on",
    ),
    "feelings": (
        "A real instrumental",
        (30, 60),
        "“Feelings” by Carlos Viola Iborra (free to use, copy and sell), which nobody sings: what "
        "the vocals hold is leakage",
    ),
}
"""Of examples/real_song.sh: heading, seconds that are drawn, what it says of the song."""
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
    with tempfile.TemporaryDirectory() as folder:
        # First, because only this needs a network; the rest takes half an hour.
        for song in REAL_SONGS:
            draw_real_song(song, arguments.model, Path(folder))
        measure(separator, songs, arguments, Path(folder))


def measure(
    separator: Separator,
    songs: Sequence[layout.Song],
    arguments: argparse.Namespace,
    pictures: Path,
) -> None:
    """Scores songs and streams; then writes everything, with the pictures of the real songs."""
    name = evaluation.system_name(separator.manifest.name, "model")
    estimators = evaluation.baseline_estimators()
    estimators[name] = evaluation.model_estimator(separator, None)
    scores = evaluation.evaluate(songs, estimators, jobs=2, progress=print)
    summary = evaluation.summarise(scores)
    streams = [(stream_ms(separator, ahead), ahead) for ahead in LOOKAHEADS_MS]
    measured = [(ms, stream_scores(separator, songs, ahead)) for ms, ahead in streams]
    first, tenth = minutes(separator, songs)

    given = [] if arguments.model is None else ["-m", str(arguments.model)]
    few = [] if arguments.songs is None else ["--songs", str(arguments.songs)]
    command = shlex.join(["python", "benchmarks/quality.py", "SET", *given, *few])
    how = f"{about(EVERY_CORE, 'onnxruntime')}; `{command}`"
    more = evaluation.model_protocol(separator, arguments.model)
    protocol = evaluation.protocol(name, arguments.dataset, len(songs), split="test", **more)
    whole = results.write(scores, protocol, RESULTS / "quality")
    draw(measured, summary[name], RESULTS / "quality/streams.png")
    for song in REAL_SONGS:
        shutil.copy(pictures / f"{song}.png", RESULTS / "quality")
    page = [
        f"# What {f'`{name}`' if given else 'the shipped model'} separates",
        "",
        f"On {f'{len(songs)} of the songs of ' if few else ''}the test split of the free data set: "
        "synthetic songs, speech turned into singing over game music, of speakers and packages "
        "that no training item had. Silence stands beside the model because under a quiet voice it "
        "already improves on the mixture.",
        "",
        whole,
        "![Scores](quality/plot.png)",
        "",
        "## Goals",
        "By the medians; over the mixture means song by song, or stretch by stretch.",
        "",
        "| goal | measured | reached |",
        "|---|---|---|",
        *goals(summary[name], first, tenth),
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
    ]
    for song, (heading, (start, stop), what) in REAL_SONGS.items():
        hear = f"examples/before_after.py $(bash examples/real_song.sh FOLDER {song}) FOLDER"
        page += [
            f"## {heading}",
            f"Seconds {start} to {stop} of {what}; to be heard by "
            f"`{' '.join(['python', hear, *given])}`.",
            "",
            f"![Spectrograms of the song, the vocals and the instrumental](quality/{song}.png)",
            "",
        ]
    (RESULTS / "quality.md").write_text("\n".join([*page, f"{how}.", ""]))
    if not given and not few:
        into_readme(summary, name, how)


def goals(found: dict[str, Summary], first: float, tenth: float) -> list[str]:
    """A row a goal of the project: what was measured, and whether that is enough.

    Args:
        first, tenth: what :func:`minutes` gives, dB.
    """

    def gained(metric: str) -> float:
        gain = found[metric].improvement if metric in found else None
        return float("nan") if gain is None else gain  # which reaches nothing

    rows = [
        ("uSDR of the vocals at least 8 dB over the mixture", gained("usdr vocals"), 8),
        ("voices of 1–2 s at least 6 dB over the mixture", gained("voice 1-2 s"), 6),
        (
            "whole songs at least 30 dB below the mixture where no voice is",
            -found[LEAKAGE].median if LEAKAGE in found else float("nan"),
            30,
        ),
    ]
    lines = [
        f"| {goal} | {measured:.2f} dB | {'yes' if measured >= least else 'no'} |"
        for goal, measured, least in rows
    ]
    apart = abs(tenth - first)
    reached = "yes" if apart <= 0.5 else "no"
    return [
        *lines,
        f"| minute ten of a stream within 0.5 dB of minute one | {apart:.2f} dB | {reached} |",
    ]


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
    times = -(-9 * minute // mixture.shape[1])
    mixture, vocals = (np.tile(audio, times)[:, : 9 * minute] for audio in (mixture, vocals))
    mixture = np.concatenate([mixture, mixture[:, :minute]], axis=1)
    stream = evaluation.stream_estimator(separator, None, LONG_LOOKAHEAD_MS)
    estimate, _ = stream(songs[0], mixture, mixture)
    wanted = vocals[:, :minute]
    return usdr_db(wanted, estimate[:, :minute]), usdr_db(wanted, estimate[:, -minute:])


def draw_real_song(song: str, model: Path | None, folder: Path) -> None:
    """``folder/SONG.png``: spectrograms; ends the program in a sentence where there is no song."""
    script = ["bash", str(ROOT / "examples/real_song.sh"), str(folder), song]
    run = subprocess.run(script, capture_output=True, text=True)
    if run.returncode != 0:
        reason = run.stderr.strip()
        sys.exit(f"{song} must come from a package of Debian's, by apt-get; it does not: {reason}")
    _, (start, stop), _ = REAL_SONGS[song]
    asked = [run.stdout.strip(), str(folder), "--seconds", str(start), str(stop)]
    asked += [] if model is None else ["-m", str(model)]
    runpy.run_path(str(ROOT / "examples/before_after.py"))["main"](asked)
    (folder / "spectrograms.png").rename(folder / f"{song}.png")


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
    """The README's table: a row a system, and in the model's what it gains on the mixture."""
    metrics = ("usdr vocals", "csdr vocals", "csdr instrumental", "voice 1-2 s", LEAKAGE)
    heads = ("uSDR vocals", "cSDR vocals", "cSDR instrumental", "voices of 1–2 s", "where no voice")
    rows = []
    for system, found in summary.items():
        shown = []
        for metric in metrics:
            shown.append(f"{found[metric].median:.1f}" if metric in found else "")
            # Where no voice is, the median itself is over the mixture.
            if system == name and shown[-1] and metric != LEAKAGE:
                shown[-1] += f" ({found[metric].improvement:+.1f})"
        rows.append(f"| {f'**{name}**' if system == name else system} | {' | '.join(shown)} |")
    table = "\n".join(
        [
            f"| dB, median of songs (over the mixture) | {' | '.join(heads)} |",
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
