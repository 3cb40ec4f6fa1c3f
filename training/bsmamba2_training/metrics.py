"""Metrics of separation quality. All take audio as (2, samples) at 44.1 kHz.

cSDR is BSS Eval v4 as computed by museval: the SDR in windows of one second after the best filter
of 512 taps, and the median over the windows. It ignores windows whose reference is exactly zero, so
it does not measure leakage into silence; :func:`leakage_db` does. uSDR is computed over the whole
song, without a filter.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2_training.voices import SAMPLE_RATE, frame_levels_db

DELTA = 1e-7
LENGTHS = ("1-2 s", "2-4 s", "4-8 s", "8 s and more")
"""Length classes: how long a voice sounds without a pause."""
_BOUNDS_S = (1.0, 2.0, 4.0, 8.0, np.inf)
_FRAMES_PER_S = 100
_SILENT_DB = 40.0
_MAX_PAUSE_S = 0.5
_MARGIN_S = 0.25
_MIN_LEAKAGE_DB = -100.0


def usdr_db(reference: Audio, estimate: Audio) -> float:
    """Returns 10·log10((Σ s² + δ) / (Σ (s − ŝ)² + δ)), δ = 1e-7, over channels and samples."""
    signal = np.square(reference, dtype=np.float64).sum() + DELTA
    error = np.square(np.subtract(reference, estimate, dtype=np.float64)).sum() + DELTA
    return float(10 * np.log10(signal / error))


def si_sdr_db(reference: Audio, estimate: Audio) -> float:
    """Returns the scale-invariant SDR: the estimate against its projection on the reference."""
    s, e = reference.astype(np.float64).ravel(), estimate.astype(np.float64).ravel()
    target = s * ((s @ e) / (s @ s + DELTA))
    return float(10 * np.log10((target @ target + DELTA) / (np.square(e - target).sum() + DELTA)))


def level_db(reference: Audio, estimate: Audio) -> float:
    """Returns the level of the reference in the estimate, dB: 0 if it is all there.

    This is the gain of the estimate's projection on the reference, at least −100 dB. It tells a
    model that misses a voice from one that lets other sounds pass. If the reference is silent, the
    level is 0.
    """
    s, e = reference.astype(np.float64).ravel(), estimate.astype(np.float64).ravel()
    energy = float(s @ s)
    return 20 * float(np.log10(max(abs(float(s @ e)) / energy, 1e-5))) if energy else 0.0


def csdr_db(references: tuple[Audio, Audio], estimates: tuple[Audio, Audio]) -> list[float]:
    """Returns the BSS Eval v4 SDR of both sources, each the median over windows of one second.

    The function needs both sources because the score of one depends on the other. A source that is
    silent in every window scores NaN.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # museval divides by silence and returns NaN there
        sdr, *_ = _museval().bss_eval(
            np.stack([source.T for source in references]).astype(np.float64),
            np.stack([source.T for source in estimates]).astype(np.float64),
            compute_permutation=False,
            window=SAMPLE_RATE,
            hop=SAMPLE_RATE,
            framewise_filters=False,
            bsseval_sources_version=False,
        )
        return [float(np.nanmedian(np.where(np.isfinite(row), row, np.nan))) for row in sdr]


@cache
def _museval() -> Any:
    """Imports museval's module of metrics; the package itself needs ffmpeg and ffprobe."""
    package = find_spec("museval")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0], "metrics.py")
    spec = spec_from_file_location("museval_metrics", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Stretch:
    """Part of a song, [start, stop) in samples, in which the voice sounds throughout or never."""

    start: int
    stop: int
    has_voice: bool

    @property
    def length(self) -> str | None:
        """Length class of the stretch; None under one second."""
        seconds = (self.stop - self.start) / SAMPLE_RATE
        index = np.searchsorted(_BOUNDS_S, seconds, side="right") - 1
        return LENGTHS[index] if index >= 0 else None


def find_stretches(vocals: Audio) -> Iterator[Stretch]:
    """Divides a song into stretches with and without a voice.

    A voice sounds where 10 ms frames are within 40 dB of the loud frames; pauses under half a
    second belong to the stretch.
    """
    levels = frame_levels_db(np.sqrt(np.square(vocals).mean(axis=0)))
    loud = levels[levels > -90]
    if not len(loud):
        yield Stretch(0, vocals.shape[1], has_voice=False)
        return
    is_active = levels > np.percentile(loud, 95) - _SILENT_DB
    edges = np.flatnonzero(np.diff(is_active.astype(int), prepend=0, append=0))
    voiced: list[list[int]] = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if voiced and start - voiced[-1][1] < _MAX_PAUSE_S * _FRAMES_PER_S:
            voiced[-1][1] = int(stop)
        else:
            voiced.append([int(start), int(stop)])
    hop, at = SAMPLE_RATE // _FRAMES_PER_S, 0
    for start, stop in voiced:
        if start * hop > at:
            yield Stretch(at, start * hop, has_voice=False)
        at = min(stop * hop, vocals.shape[1])
        yield Stretch(start * hop, at, has_voice=True)
    if at < vocals.shape[1]:
        yield Stretch(at, vocals.shape[1], has_voice=False)


def sparse_usdr_db(vocals: Audio, estimate: Audio) -> dict[str, list[float]]:
    """Returns the uSDR of each stretch with a voice, by length class."""
    scores: dict[str, list[float]] = {length: [] for length in LENGTHS}
    for stretch in find_stretches(vocals):
        if stretch.has_voice and stretch.length:
            part = slice(stretch.start, stretch.stop)
            scores[stretch.length].append(usdr_db(vocals[:, part], estimate[:, part]))
    return scores


def leakage_db(mixture: Audio, vocals: Audio, estimate: Audio) -> float | None:
    """Returns the energy of the estimated vocals over the mixture's where no voice sounds, dB.

    The energies are summed over all stretches of at least one second without a voice, minus a
    quarter of a second at each end. The result is at least −100; None if there is no such stretch
    or the mixture is silent in all of them.
    """
    margin, leaked, mixed = int(_MARGIN_S * SAMPLE_RATE), 0.0, 0.0
    for stretch in find_stretches(vocals):
        if not stretch.has_voice and stretch.length:
            part = slice(stretch.start + margin, stretch.stop - margin)
            leaked += float(np.square(estimate[:, part], dtype=np.float64).sum())
            mixed += float(np.square(mixture[:, part], dtype=np.float64).sum())
    if mixed <= DELTA:
        return None
    return max(_MIN_LEAKAGE_DB, float(10 * np.log10(leaked / mixed + 1e-20)))
