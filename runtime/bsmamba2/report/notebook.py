"""Stems in a notebook: the page of a report, in a frame."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bsmamba2.audio.array import Audio
from bsmamba2.report.facts import versions
from bsmamba2.report.page import page
from bsmamba2.report.recorder import Recorder

SIZE_MB = 4.0
"""What a page has at most, in millions of bytes: notebooks keep it in their files."""

_BLOCK = 1 << 16
_ROW_PX, _REST_PX = 215, 330


def frame(
    outputs: Audio, names: Sequence[str], sample_rate: float, title: str, has_sum: bool
) -> str:
    """Returns an HTML frame with players and spectrograms.

    Args:
        outputs: (outputs, channels, samples).
        names: of the outputs.
        sample_rate: Hz.
        title: the name of the song.
        has_sum: whether the outputs sum to the song.
    """
    _, channels, samples = outputs.shape
    recorder = Recorder(names, sample_rate, channels, samples, int(SIZE_MB * 1e6), has_sum)
    for start in range(0, samples, _BLOCK):
        recorder.push(outputs[..., start : start + _BLOCK].astype("float64"))
    return framed(page(recorder.finish(), title, {"Versions": versions()}), len(names) + has_sum)


def framed(html: str, tracks: int) -> str:
    """Returns a page in a frame that keeps its style and script apart from those around it."""
    return (
        f'<iframe srcdoc="{escape(html)}" sandbox="allow-scripts" title="Stems" '
        f'style="width: 100%; height: {frame_height(tracks)}px; border: 0"></iframe>'
    )


def frame_height(tracks: int) -> int:
    """Returns the height in pixels of a frame that shows the players and the figures of a page."""
    return _REST_PX + _ROW_PX * tracks
