"""Scores of a separator, or of another tool's files, on songs whose stems are known.

    RESULTS/scores.json     protocol, summary and every song
    RESULTS/songs.csv       a row a song and system
    RESULTS/table.md        the summary, with its protocol
    RESULTS/plot.png        the same, drawn

Baselines are scored by the same code on the same songs. A summary is median, mean and a 95%
interval of the median (bootstrap over songs, each with all its stretches); an improvement is the
difference to the mixture's own score, song by song and stretch by stretch.
"""

from __future__ import annotations

import hashlib
import platform
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError, ModelError
from bsmamba2.files.song_file import SongFile
from bsmamba2_training.baselines import BASELINES
from bsmamba2_training.layout import SUFFIXES, WHOLES, Song
from bsmamba2_training.metrics import (
    LENGTHS,
    csdr_db,
    leakage_db,
    si_sdr_db,
    sparse_usdr_db,
    usdr_db,
)
from bsmamba2_training.voices import SAMPLE_RATE

Estimator = Callable[[Song, Audio, Audio], tuple[Audio, Audio]]
"""``estimator(song, mixture, vocals) → (vocals, instrumental)``; only an oracle looks at vocals."""

STEMS = ("vocals", "instrumental")
METRICS = {
    f"{metric} {stem}": f"{name} of the {stem}, dB"
    for metric, name in (("usdr", "uSDR"), ("csdr", "cSDR"), ("sisdr", "SI-SDR"))
    for stem in STEMS
} | {f"voice {length}": f"uSDR of vocals that sound {length}, dB" for length in LENGTHS}
LEAKAGE = "leakage"
"""Vocals' energy over the mixture's where no voice sounds, dB: lower is better."""
OTHERS_NAMES = (*WHOLES, "other", "others")
_BOOTSTRAPS = 2000
_OTHER_LENGTH_S = 0.1
"""By so much a tool's stem may be longer or shorter than its song: resampling and codecs shift."""


@dataclass(frozen=True)
class Score:
    """One system on one song; a metric that the song cannot give is missing."""

    song: str
    system: str
    values: dict[str, float]
    voices: dict[str, list[float]] = field(default_factory=dict)
    """Every stretch with a voice, by the class of its length."""


@dataclass(frozen=True)
class Summary:
    """A metric of a system over all songs."""

    median: float
    mean: float
    low: float
    high: float
    """Of the median's 95% interval."""
    songs: int
    """Songs that have it."""
    values: int
    """One a song; of a voice's length, one a stretch."""
    improvement: float | None
    """Median of the differences to the mixture's."""


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
        jobs: processes that score while this one separates; cSDR takes longer than most separators.
    """
    scores: list[Score] = []
    waiting: deque[Future[Score]] = deque()

    def take() -> None:
        scores.append(waiting.popleft().result())
        if progress:
            progress(f"{scores[-1].song}: {scores[-1].system}")

    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for song in songs:
            mixture, vocals, instrumental = song.stems()
            for system, estimator in systems.items():
                estimates = estimator(song, mixture, vocals)
                given = (song.name, system, mixture, (vocals, instrumental), estimates, csdr)
                waiting.append(pool.submit(score, *given))
                # No more songs in memory than are being scored.
                while len(waiting) > jobs:
                    take()
        while waiting:
            take()
    return scores


def score(
    song: str,
    system: str,
    mixture: Audio,
    references: tuple[Audio, Audio],
    estimates: tuple[Audio, Audio],
    csdr: bool = True,
) -> Score:
    """All metrics of one system on one song; references and estimates as :data:`STEMS`."""
    values: dict[str, float] = {}
    for stem, reference, estimate in zip(STEMS, references, estimates, strict=True):
        if reference.any():
            values[f"usdr {stem}"] = usdr_db(reference, estimate)
        if reference.any() and estimate.any():
            values[f"sisdr {stem}"] = si_sdr_db(reference, estimate)
    # BSS Eval has no score for a source that is silent throughout, true or estimated.
    if csdr and all(source.any() for source in (*references, *estimates)):
        for stem, found in zip(STEMS, csdr_db(references, estimates), strict=True):
            if np.isfinite(found):
                values[f"csdr {stem}"] = found
    leaked = leakage_db(mixture, references[0], estimates[0])
    if leaked is not None:
        values[LEAKAGE] = leaked
    return Score(song, system, values, sparse_usdr_db(references[0], estimates[0]))


def summarise(scores: list[Score]) -> dict[str, dict[str, Summary]]:
    """``summarise(scores)[system][metric]``."""
    table: dict[str, dict[str, Summary]] = {}
    for system in dict.fromkeys(item.system for item in scores):
        for metric in (*METRICS, LEAKAGE):
            ours, mixtures = _values(scores, system, metric), _values(scores, "mixture", metric)
            if not ours:
                continue
            gained = [value - mixtures[key] for key, value in ours.items() if key in mixtures]
            values = np.array(list(ours.values()))
            low, high = _interval(ours)
            table.setdefault(system, {})[metric] = Summary(
                median=float(np.median(values)),
                mean=float(values.mean()),
                low=low,
                high=high,
                songs=len({song for song, _ in ours}),
                values=len(values),
                improvement=float(np.median(gained)) if gained else None,
            )
    return table


def _values(scores: list[Score], system: str, metric: str) -> dict[tuple[str, int], float]:
    """A metric's values by song and, for stretches, their number in it."""
    found = {}
    for item in scores:
        if item.system != system:
            continue
        if metric in item.values:
            found[item.song, 0] = item.values[metric]
        for number, value in enumerate(item.voices.get(metric.removeprefix("voice "), ())):
            found[item.song, number] = value
    return found


def _interval(found: dict[tuple[str, int], float]) -> tuple[float, float]:
    """The median's 95% interval, by drawing songs, each with all its stretches.

    Stretches of one song are alike, so drawn one by one they would make it too narrow (Field and
    Welsh 2007, "Bootstrapping clustered data").
    """
    songs, song_of = np.unique([song for song, _ in found], return_inverse=True)
    values = np.array(list(found.values()))
    order = np.argsort(values)
    even = np.full(len(songs), 1 / len(songs))
    times = np.random.default_rng(0).multinomial(len(songs), even, _BOOTSTRAPS)
    # A song that was drawn twice counts each of its values twice: (draws, values in their order).
    until = np.cumsum(times[:, song_of[order]], axis=1)
    count = until[:, -1:]
    middle = [np.argmax(until > rank, axis=1) for rank in ((count - 1) // 2, count // 2)]
    low, high = np.percentile(values[order][middle].mean(axis=0), [2.5, 97.5])
    return float(low), float(high)


def system_name(name: str, kind: str) -> str:
    """A model's or folder's name in the tables; a baseline's own stays the baseline's."""
    return f"{name} ({kind})" if name in BASELINES else name


def model_estimator(separator: Separator, overlap: float | None) -> Estimator:
    """What ``bsmamba2 separate`` makes of the mixture."""
    _require_vocals(separator)

    def run(song: Song, mixture: Audio, vocals: Audio) -> tuple[Audio, Audio]:
        estimate = np.asarray(separator(mixture, SAMPLE_RATE, overlap=overlap)["vocals"])
        return estimate, mixture - estimate

    return run


def stream_estimator(
    separator: Separator, block_ms: float | None, lookahead_ms: float
) -> Estimator:
    """What a stream with that lookahead makes of the mixture, pushed second by second."""
    _require_vocals(separator)

    def run(song: Song, mixture: Audio, vocals: Audio) -> tuple[Audio, Audio]:
        stream = separator.stream(SAMPLE_RATE, 2, block_ms=block_ms, lookahead_ms=lookahead_ms)
        seconds = range(0, mixture.shape[1], SAMPLE_RATE)
        parts = [stream.push(mixture[:, at : at + SAMPLE_RATE])["vocals"] for at in seconds]
        estimate = np.concatenate([*parts, stream.flush()["vocals"]], axis=1)
        return estimate, mixture - estimate

    return run


def _require_vocals(separator: Separator) -> None:
    made = separator.manifest.outputs
    if "vocals" not in made:
        raise ModelError(f"the model must make vocals to be scored; it makes {', '.join(made)}")


def files_estimator(folder: Path) -> Estimator:
    """Another tool's stems: ``folder/SONG/vocals.*`` or ``folder/SONG_vocals.*``.

    The instrumental is a file beside it, by any of its usual names, else mixture less vocals.
    """

    def find(song: Song, *names: str) -> Path | None:
        for name in names:
            for stem in (f"{song.name}/{name}", f"{song.name}_{name}", f"{song.name} ({name})"):
                for suffix in SUFFIXES:
                    if (path := folder / f"{stem}{suffix}").is_file():
                        return path
        return None

    def run(song: Song, mixture: Audio, vocals: Audio) -> tuple[Audio, Audio]:
        path = find(song, "vocals")
        if path is None:
            raise AudioError(f"{folder} must hold {song.name}/vocals.wav; it does not")
        estimate = _read_like(path, mixture)
        rest = find(song, *OTHERS_NAMES)
        return estimate, _read_like(rest, mixture) if rest else mixture - estimate

    return run


def baseline_estimators() -> dict[str, Estimator]:
    """Each baseline as an estimator; its instrumental is the mixture less its vocals."""

    def of(baseline: Callable[[Audio, Audio], Audio]) -> Estimator:
        def run(song: Song, mixture: Audio, vocals: Audio) -> tuple[Audio, Audio]:
            estimate = baseline(mixture, vocals)
            # The mixture stands for both stems: its row says what doing nothing scores.
            return estimate, mixture if estimate is mixture else mixture - estimate

        return run

    return {name: of(baseline) for name, baseline in BASELINES.items()}


def protocol(system: str, dataset: Path, songs: int, **more: Any) -> dict[str, Any]:
    """What must stand beside any of these figures."""
    names = ("bsmamba2", "museval", "numpy", "onnxruntime", "onnxruntime-gpu", "soxr")
    return {
        "system": system,
        "dataset": dataset.resolve().name,
        "songs": songs,
        **more,
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: found for name in names if (found := _version(name))},
    }


def model_protocol(
    separator: Separator,
    model: Path | None,
    *,
    overlap: float | None = None,
    block_ms: float | None = None,
    lookahead_ms: float | None = None,
) -> dict[str, Any]:
    """The model's part of the protocol: of whole songs, or of a stream with that lookahead."""
    manifest = separator.manifest
    if lookahead_ms is None:
        overlap = manifest.overlap if overlap is None else overlap
        cut = {"chunk_s": manifest.chunk / manifest.sample_rate, "overlap": overlap}
    else:
        stream = separator.stream(SAMPLE_RATE, 2, block_ms=block_ms, lookahead_ms=lookahead_ms)
        cut = {
            "block_ms": lookahead_ms if block_ms is None else block_ms,
            "lookahead_ms": lookahead_ms,
            "latency_ms": 1000 * stream.latency_samples / SAMPLE_RATE,
        }
    sha256 = manifest.checkpoint_sha256
    if model is not None and model.is_file():
        sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    return {
        "model": manifest.name,
        "model_sha256": sha256,
        **{name: round(value, 3) for name, value in cut.items()},
        "precision": manifest.precision,
        "device": separator.device,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read_like(path: Path, mixture: Audio) -> Audio:
    """A file as stereo at 44.1 kHz, of the mixture's length.

    Raises:
        AudioError: the file is unreadable, not finite, or of another length.
    """
    with SongFile(path) as file:
        rate = file.sample_rate
        audio = np.concatenate([block.astype(np.float32) for block in file.blocks()], axis=1)
    wanted_s, came_s = mixture.shape[1] / SAMPLE_RATE, audio.shape[1] / rate
    if abs(came_s - wanted_s) > _OTHER_LENGTH_S:
        raise AudioError(
            f"{path} must be as long as its song, {wanted_s:.2f} s, give or take "
            f"{_OTHER_LENGTH_S} s; it has {came_s:.2f} s: separate the whole song again"
        )
    if rate != SAMPLE_RATE:
        audio = soxr.resample(audio.T, rate, SAMPLE_RATE).T
    stereo = np.broadcast_to(audio[:2], (2, audio.shape[1]))[:, : mixture.shape[1]]
    out: Audio = np.pad(stereo, ((0, 0), (0, mixture.shape[1] - stereo.shape[1])))
    return out
