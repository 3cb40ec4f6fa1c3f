"""Scores a separator, or the files of another tool, on songs whose stems are known.

    RESULTS/scores.json     protocol, summary and every song
    RESULTS/songs.csv       one row per song and system
    RESULTS/table.md        the summary and its protocol
    RESULTS/plot.png        the summary as a plot
    RESULTS/activity.png    the summary by how long a voice sounds

The same code scores the baselines on the same songs. Read uSDR beside the level of the voice: a
model that outputs silence scores 0 dB, which is better than many mixtures. A summary holds the
median, the mean and a 95% confidence interval of the median (bootstrap over songs, each with all
its stretches). An improvement is the difference from the mixture's own score, song by song and
stretch by stretch; silence improves on most mixtures, so it is in the JSON only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soxr

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError, ModelError
from bsmamba2.files.song_file import SongFile
from bsmamba2_training.baselines import BASELINES
from bsmamba2_training.layout import INSTRUMENTAL_NAMES, SUFFIXES, Song
from bsmamba2_training.metrics import (
    LENGTHS,
    csdr_db,
    leakage_db,
    level_db,
    si_sdr_db,
    sparse_usdr_db,
    usdr_db,
)
from bsmamba2_training.voices import SAMPLE_RATE

Estimator = Callable[[Song, Audio, Audio], tuple[Audio, Audio]]
"""``estimator(song, mixture, vocals) → (vocals, instrumental)``; only an oracle uses ``vocals``."""

STEMS = ("vocals", "instrumental")
METRICS = {
    f"{metric} {stem}": f"{name} of the {stem}, dB"
    for metric, name in (("usdr", "uSDR"), ("csdr", "cSDR"), ("sisdr", "SI-SDR"))
    for stem in STEMS
} | {f"voice {length}": f"uSDR of vocals that sound {length}, dB" for length in LENGTHS}
LEVEL = "level"
"""Level of the voice in the estimated vocals, dB: 0 if it is all there."""
LEAKAGE = "leakage"
"""Energy of the estimated vocals over the mixture's where no voice sounds, dB: lower is better."""
_BOOTSTRAPS = 2000
_LENGTH_TOLERANCE_S = 0.1
"""Allowed difference in length of a tool's stem and its song: codecs and resampling change it."""


@dataclass(frozen=True)
class Score:
    """The scores of one system on one song; metrics that are undefined for the song are missing."""

    song: str
    system: str
    values: dict[str, float]
    voices: dict[str, list[float]] = field(default_factory=dict)
    """uSDR of every stretch with a voice, by length class."""


@dataclass(frozen=True)
class Summary:
    """One metric of one system over all songs."""

    median: float
    mean: float
    low: float
    """Lower end of the median's 95% confidence interval."""
    high: float
    """Upper end of that interval."""
    songs: int
    """Number of songs that have the metric."""
    values: int
    """Number of values: one per song, or one per stretch for the length classes."""
    improvement: float | None
    """Median difference from the mixture's scores."""


def evaluate(
    songs: Iterable[Song],
    systems: dict[str, Estimator],
    *,
    csdr: bool = True,
    jobs: int = 1,
    progress: Callable[[str], None] | None = None,
) -> list[Score]:
    """Scores each system on each song.

    Args:
        jobs: number of processes that score while this one separates; cSDR takes longer than most
            separators.
        progress: called with a line of text after each score.
    """
    scores: list[Score] = []
    pending: deque[Future[Score]] = deque()

    def collect_oldest() -> None:
        scores.append(pending.popleft().result())
        if progress:
            progress(f"{scores[-1].song}: {scores[-1].system}")

    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for song in songs:
            mixture, vocals, instrumental = song.stems()
            for system, estimator in systems.items():
                estimates = estimator(song, mixture, vocals)
                arguments = (song.name, system, mixture, (vocals, instrumental), estimates, csdr)
                pending.append(pool.submit(score, *arguments))
                # Bounds memory: at most one song waits per scoring process.
                while len(pending) > jobs:
                    collect_oldest()
        while pending:
            collect_oldest()
    return scores


def score(
    song: str,
    system: str,
    mixture: Audio,
    references: tuple[Audio, Audio],
    estimates: tuple[Audio, Audio],
    csdr: bool = True,
) -> Score:
    """Computes all metrics of one system on one song.

    Args:
        references, estimates: the stems in the order of :data:`STEMS`.
    """
    values: dict[str, float] = {}
    for stem, reference, estimate in zip(STEMS, references, estimates, strict=True):
        if reference.any():
            values[f"usdr {stem}"] = usdr_db(reference, estimate)
        if reference.any() and estimate.any():
            values[f"sisdr {stem}"] = si_sdr_db(reference, estimate)
    # BSS Eval is undefined if a source, true or estimated, is silent throughout.
    if csdr and all(source.any() for source in (*references, *estimates)):
        for stem, csdr_value in zip(STEMS, csdr_db(references, estimates), strict=True):
            if np.isfinite(csdr_value):
                values[f"csdr {stem}"] = csdr_value
    if references[0].any():
        values[LEVEL] = level_db(references[0], estimates[0])
    leakage = leakage_db(mixture, references[0], estimates[0])
    if leakage is not None:
        values[LEAKAGE] = leakage
    return Score(song, system, values, sparse_usdr_db(references[0], estimates[0]))


def summarise(scores: list[Score]) -> dict[str, dict[str, Summary]]:
    """Returns ``table[system][metric]``."""
    table: dict[str, dict[str, Summary]] = {}
    for system in dict.fromkeys(item.system for item in scores):
        for metric in (*METRICS, LEVEL, LEAKAGE):
            by_key, mixture = _values(scores, system, metric), _values(scores, "mixture", metric)
            if not by_key:
                continue
            gains = [value - mixture[key] for key, value in by_key.items() if key in mixture]
            values = np.array(list(by_key.values()))
            low, high = _confidence_interval(by_key)
            table.setdefault(system, {})[metric] = Summary(
                median=float(np.median(values)),
                mean=float(values.mean()),
                low=low,
                high=high,
                songs=len({song for song, _ in by_key}),
                values=len(values),
                improvement=float(np.median(gains)) if gains else None,
            )
    return table


def _values(scores: list[Score], system: str, metric: str) -> dict[tuple[str, int], float]:
    """Returns the values of a metric, keyed by song and number of the stretch (0 for songs)."""
    values = {}
    for item in scores:
        if item.system != system:
            continue
        if metric in item.values:
            values[item.song, 0] = item.values[metric]
        for number, value in enumerate(item.voices.get(metric.removeprefix("voice "), ())):
            values[item.song, number] = value
    return values


def _confidence_interval(by_key: dict[tuple[str, int], float]) -> tuple[float, float]:
    """Returns the median's 95% confidence interval by a bootstrap that draws whole songs.

    The stretches of a song are similar, so drawing them one by one would make the interval too
    narrow (Field and Welsh 2007, "Bootstrapping clustered data").
    """
    songs, song_of = np.unique([song for song, _ in by_key], return_inverse=True)
    values = np.array(list(by_key.values()))
    order = np.argsort(values)
    uniform = np.full(len(songs), 1 / len(songs))
    times = np.random.default_rng(0).multinomial(len(songs), uniform, _BOOTSTRAPS)
    # If a song is drawn twice, each of its values counts twice. Shape: (draws, sorted values).
    cumulative = np.cumsum(times[:, song_of[order]], axis=1)
    count = cumulative[:, -1:]
    middle = [np.argmax(cumulative > rank, axis=1) for rank in ((count - 1) // 2, count // 2)]
    low, high = np.percentile(values[order][middle].mean(axis=0), [2.5, 97.5])
    return float(low), float(high)


def system_name(name: str, kind: str, taken: Iterable[str] = ()) -> str:
    """Returns the name of a model or folder in the tables, distinct from all other names there."""
    name = f"{name} ({kind})" if name in BASELINES else name
    numbered = (f"{name} ({number})" for number in count(2))
    return next(free for free in chain([name], numbered) if free not in taken)


def model_estimator(separator: Separator, overlap: float | None) -> Estimator:
    """Returns an estimator that separates the whole song, as ``bsmamba2 separate`` does.

    Raises:
        ModelError: the model does not output vocals.
    """
    _require_vocals(separator)

    def run(song: Song, mixture: Audio, vocals: Audio) -> tuple[Audio, Audio]:
        estimate = np.asarray(separator(mixture, SAMPLE_RATE, overlap=overlap)["vocals"])
        return estimate, mixture - estimate

    return run


def stream_estimator(
    separator: Separator, block_ms: float | None, lookahead_ms: float
) -> Estimator:
    """Returns an estimator that pushes the song through a stream, one second at a time.

    Raises:
        ModelError: the model does not output vocals.
    """
    _require_vocals(separator)

    def run(song: Song, mixture: Audio, vocals: Audio) -> tuple[Audio, Audio]:
        stream = separator.stream(SAMPLE_RATE, 2, block_ms=block_ms, lookahead_ms=lookahead_ms)
        seconds = range(0, mixture.shape[1], SAMPLE_RATE)
        parts = [stream.push(mixture[:, at : at + SAMPLE_RATE])["vocals"] for at in seconds]
        estimate = np.concatenate([*parts, stream.flush()["vocals"]], axis=1)
        return estimate, mixture - estimate

    return run


def _require_vocals(separator: Separator) -> None:
    outputs = separator.manifest.outputs
    if "vocals" not in outputs:
        raise ModelError(
            f"model must output vocals; got {', '.join(outputs)} in {separator.manifest.name}: "
            "choose a model with vocals"
        )


def files_estimator(folder: Path) -> Estimator:
    """Returns an estimator that reads the stems of another tool.

    The vocals are ``folder/SONG/vocals.*``, ``folder/SONG_vocals.*`` or ``folder/SONG (vocals).*``.
    The instrumental has any of its usual names; without one it is the mixture minus the vocals.
    The estimator raises :class:`AudioError` if a song has no vocals.
    """

    def find_stem(song: Song, *names: str) -> Path | None:
        for name in names:
            for stem in (f"{song.name}/{name}", f"{song.name}_{name}", f"{song.name} ({name})"):
                for suffix in SUFFIXES:
                    if (path := folder / f"{stem}{suffix}").is_file():
                        return path
        return None

    def run(song: Song, mixture: Audio, vocals: Audio) -> tuple[Audio, Audio]:
        path = find_stem(song, "vocals")
        if path is None:
            raise AudioError(
                f"estimates must contain {song.name}/vocals.wav or {song.name}_vocals.wav; got "
                f"{folder} without them: separate that song too"
            )
        estimate = _read_like(path, mixture)
        rest = find_stem(song, *INSTRUMENTAL_NAMES, "other", "others")
        return estimate, _read_like(rest, mixture) if rest else mixture - estimate

    return run


def baseline_estimators() -> dict[str, Estimator]:
    """Returns each baseline as an estimator; its instrumental is the mixture minus its vocals."""

    def to_estimator(baseline: Callable[[Audio, Audio], Audio]) -> Estimator:
        def run(song: Song, mixture: Audio, vocals: Audio) -> tuple[Audio, Audio]:
            estimate = baseline(mixture, vocals)
            # The mixture serves as both stems, so its row is the score without any processing.
            return estimate, mixture if estimate is mixture else mixture - estimate

        return run

    return {name: to_estimator(baseline) for name, baseline in BASELINES.items()}


def _read_like(path: Path, mixture: Audio) -> Audio:
    """Reads a file as stereo at 44.1 kHz, cut or padded to the length of the mixture.

    Raises:
        AudioError: the file is unreadable, is not finite, or differs in length by more than 0.1 s.
    """
    with SongFile(path) as file:
        rate = file.sample_rate
        audio = np.concatenate([block.astype(np.float32) for block in file.blocks()], axis=1)
    song_s, file_s = mixture.shape[1] / SAMPLE_RATE, audio.shape[1] / rate
    if abs(file_s - song_s) > _LENGTH_TOLERANCE_S:
        raise AudioError(
            f"{path} must be as long as its song, {song_s:.2f} ± {_LENGTH_TOLERANCE_S} s; got "
            f"{file_s:.2f} s: separate the whole song again"
        )
    if rate != SAMPLE_RATE:
        audio = soxr.resample(audio.T, rate, SAMPLE_RATE).T
    stereo = np.broadcast_to(audio[:2], (2, audio.shape[1]))[:, : mixture.shape[1]]
    out: Audio = np.pad(stereo, ((0, 0), (0, mixture.shape[1] - stereo.shape[1])))
    return out
