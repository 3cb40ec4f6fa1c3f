"""How good a separation is, as numbers. All take audio as (2, samples) at 44.1 kHz.

cSDR is BSS Eval v4 by museval: SDR in windows of a second after the best filter of 512 taps, the
median over the windows. A window whose reference is exactly zero counts for nothing there, so it
says nothing of leakage into silence: that is :func:`leakage_db`. uSDR is over the whole song,
without a filter.
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
"""Classes of voices by how long they sound."""
_BOUNDS_S = (1.0, 2.0, 4.0, 8.0, np.inf)
_FRAMES_PER_S = 100
_SILENT_DB = 40.0
_JOINED_S = 0.5
_MARGIN_S = 0.25
_LEAST_DB = -100.0


def usdr_db(reference: Audio, estimate: Audio) -> float:
    """10·log10((Σ s² + δ) / (Σ (s − ŝ)² + δ)), δ = 1e-7, over everything."""
    signal = np.square(reference, dtype=np.float64).sum() + DELTA
    error = np.square(np.subtract(reference, estimate, dtype=np.float64)).sum() + DELTA
    return float(10 * np.log10(signal / error))


def si_sdr_db(reference: Audio, estimate: Audio) -> float:
    """Scale-invariant SDR: that of the estimate against its projection on the reference."""
    s, e = reference.astype(np.float64).ravel(), estimate.astype(np.float64).ravel()
    target = s * ((s @ e) / (s @ s + DELTA))
    return float(10 * np.log10((target @ target + DELTA) / (np.square(e - target).sum() + DELTA)))


def csdr_db(references: tuple[Audio, Audio], estimates: tuple[Audio, Audio]) -> list[float]:
    """BSS Eval v4's SDR of both sources, each the median over windows of a second.

    Both are always given together, because the score of one depends on the other. NaN where no
    window has the source.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its divisions by silence, which it marks as NaN
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
    """museval's metrics alone: the package around them wants the programs ffmpeg and ffprobe."""
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
    """Part of a song in which the voice sounds throughout, or not at all."""

    start: int
    """Samples."""
    stop: int
    has_voice: bool

    @property
    def length(self) -> str | None:
        """The class of a voice that sounds so long; None under a second."""
        seconds = (self.stop - self.start) / SAMPLE_RATE
        found = np.searchsorted(_BOUNDS_S, seconds, side="right") - 1
        return LENGTHS[found] if found >= 0 else None


def stretches(vocals: Audio) -> Iterator[Stretch]:
    """Cuts a song where its voice comes and goes.

    A voice sounds where its 10 ms frames are within 40 dB of its loud ones; pauses under half a
    second belong to it.
    """
    levels = frame_levels_db(np.sqrt(np.square(vocals).mean(axis=0)))
    loud = levels[levels > -90]
    if not len(loud):
        yield Stretch(0, vocals.shape[1], has_voice=False)
        return
    active = levels > np.percentile(loud, 95) - _SILENT_DB
    edges = np.flatnonzero(np.diff(active.astype(int), prepend=0, append=0))
    voiced: list[list[int]] = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if voiced and start - voiced[-1][1] < _JOINED_S * _FRAMES_PER_S:
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
    """uSDR of each stretch with a voice, by the class of its length."""
    found: dict[str, list[float]] = {length: [] for length in LENGTHS}
    for stretch in stretches(vocals):
        if stretch.has_voice and stretch.length:
            part = slice(stretch.start, stretch.stop)
            found[stretch.length].append(usdr_db(vocals[:, part], estimate[:, part]))
    return found


def leakage_db(mixture: Audio, vocals: Audio, estimate: Audio) -> float | None:
    """Energy of the vocals' estimate over the mixture's where there is no voice, dB.

    Over all stretches of a second and more without one, less a quarter of a second at their ends;
    None where there are none. At least −100.
    """
    margin, leaked, played = int(_MARGIN_S * SAMPLE_RATE), 0.0, 0.0
    for stretch in stretches(vocals):
        if not stretch.has_voice and stretch.length:
            part = slice(stretch.start + margin, stretch.stop - margin)
            leaked += float(np.square(estimate[:, part], dtype=np.float64).sum())
            played += float(np.square(mixture[:, part], dtype=np.float64).sum())
    if played <= DELTA:
        return None
    return max(_LEAST_DB, float(10 * np.log10(leaked / played + 1e-20)))
