"""Everything between a chunk of audio and a graph: transform, padding and level.

    chunk ─ pad ─ normalise ─┬─ transform ─▶ graph ─▶ inverse ─┬─ + ─ undo ─▶ stems
                             └─────────────▶   "   ─▶ ─────────┘

The waveform's path exists only in graphs of both (HT Demucs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.audio.transforms import KINDS
from bsmamba2.formats.manifest import Manifest

Call = Callable[[Sequence[Audio]], Sequence[Audio]]
"""Runs a graph: its inputs (batch, …) in order, to its outputs (batch, stems, …) in order."""


def run_chunk(manifest: Manifest, chunk: Audio, call: Call) -> Audio:
    """Separates one chunk with a graph.

    Args:
        manifest: what the graph takes and returns.
        chunk: (channels, samples); any number of samples, at most a chunk if the length is fixed.
        call: runs the graph.

    Returns:
        (stems, channels, samples).
    """
    samples = chunk.shape[-1]
    # A graph of waveforms needs at least half a frame, for the reflection at its edges.
    least = manifest.chunk if manifest.fixed_length else manifest.n_fft // 2 + 1
    if manifest.fixed_length or manifest.io == "waveform":
        chunk = np.pad(chunk, [(0, 0), (0, max(0, least - samples))])
    mean, deviation = _level(chunk) if manifest.normalize else (np.float32(0), np.float32(1))
    if manifest.normalize:
        chunk = (chunk - mean) / deviation
    stems: Audio = _run_graph(manifest, chunk, call)[..., :samples]
    if manifest.normalize:
        stems = (stems * deviation + mean).astype(np.float32, copy=False)
    return stems


def _run_graph(manifest: Manifest, chunk: Audio, call: Call) -> Audio:
    if manifest.io == "waveform":
        waveform: Audio = call([chunk[np.newaxis]])[0][0]
        return waveform
    transform = KINDS[manifest.transform](manifest.n_fft, manifest.hop)
    inputs = [transform.analyse(chunk)[np.newaxis]]
    if manifest.io == "both":
        inputs.append(chunk[np.newaxis])
    spectrum, *waveforms = call(inputs)
    if manifest.zero_dc:
        spectrum = spectrum.copy()
        spectrum[..., 0, :] = 0
    stems = transform.synthesise(spectrum[0], chunk.shape[-1])
    return stems + waveforms[0][0] if waveforms else stems


def _level(chunk: Audio) -> tuple[np.float32, np.float32]:
    """Returns mean and standard deviation of the mean of the channels."""
    mono = chunk.mean(axis=0, dtype=np.float64)
    return np.float32(mono.mean()), np.float32(mono.std() + 1e-8)
