"""Writes a recording as one HTML page that needs no other file and no network.

Everything that has a name from outside is escaped as HTML text; no name becomes part of a script.
The page allows no script but its own, by hash, and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bsmamba2.errors import one_line
from bsmamba2.report.png import png
from bsmamba2.report.preview_audio import BITS
from bsmamba2.report.recorder import ACTIVE_DB, Recording, Track
from bsmamba2.report.spectrogram import RANGE_DB, decibels, picture

if TYPE_CHECKING:
    from bsmamba2.report.facts import Facts

_ASSETS = Path(__file__).with_name("assets")
_FLOOR_DB = 60.0
"""The bottom of the curves."""
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200)
_MOST_TICKS = 12


def page(recording: Recording, title: str, facts: Facts) -> str:
    """Returns the HTML of a report.

    Args:
        recording: what it shows.
        title: the name of the song.
        facts: tables by their titles.
    """
    first = recording.tracks[0]
    script = _asset("player.js")
    stems = recording.tracks[recording.has_song :]
    playable = min(recording.audio_seconds, recording.seconds)
    parts = {
        "title": _text(title),
        "subtitle": f"{_length(recording.seconds)} · {_text(', '.join(t.name for t in stems))}",
        "style": _asset("style.css"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "seconds": f"{recording.seconds:.3f}",
        "playable": f"{playable:.3f}",
        "rate": f"{recording.form.sample_rate}",
        "length": _length(recording.seconds),
        "tracks": "\n".join(_track(recording, track, first) for track in recording.tracks),
        "axis": f"<div>{_axis(recording.seconds)}</div>",
        "figures": "\n".join(_figures(track, first) for track in recording.tracks),
        "sum": _sum(recording),
        "notes": "\n".join(f"<li>{note}</li>" for note in _notes(recording)),
        "facts": "\n".join(_table(name, rows) for name, rows in facts.items()),
        "audio": "\n".join(
            f'<script type="text/plain" data-stem>{base64.b64encode(track.audio).decode()}</script>'
            for track in stems
            if playable > 0
        ),
    }
    # In one pass, so that what a part contains is never taken for a placeholder.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _text(text: str) -> str:
    """Escapes a name from outside; bytes that are not text become a replacement character."""
    return escape(one_line(text).encode("utf-8", "replace").decode())


def _track(recording: Recording, track: Track, first: Track) -> str:
    name = _text(track.name)
    is_stem = bool(track.audio) or not (recording.has_song and track is first)
    buttons = "".join(
        f'<button type="button" class="{verb.lower()}" aria-pressed="false" '
        f'aria-label="{verb} {name}" disabled>{verb}</button> '
        for verb in ("Solo", "Mute")
    )
    return (
        f'<section class="track"{" data-stem" * is_stem} aria-label="{name}">'
        f"<div><h2>{name}</h2>"
        + (buttons if is_stem else "<p>plays while all stems do</p>")
        + f"</div>{_view(recording, track, first)}</section>"
    )


def _view(recording: Recording, track: Track, first: Track) -> str:
    top_db = 10 * round(float(decibels(first.power.max())) / 10 + 0.5)
    image = base64.b64encode(png(picture(track.power, max(top_db, -60.0)))).decode()
    hz = "".join(
        f'<span class="hz" style="bottom:{height:.0%}" aria-hidden="true">{text}</span>'
        for height, text in recording.ticks
    )
    name, active = _text(track.name), track.is_active(first.mean_square)
    silent = ""
    if recording.audio_seconds < recording.seconds - 0.5:
        left = 1 - recording.audio_seconds / recording.seconds
        silent = f'<div class="silent" style="width:{left:.2%}"></div>'
    return (
        f'<div class="view"><div class="spectrum">{hz}'
        f'<img alt="Spectrogram of {name}, 40 Hz to 16 kHz" src="data:image/png;base64,{image}">'
        f"</div>{_curves(track)}{_strip(name, active)}{silent}</div>"
    )


def _curves(track: Track) -> str:
    count = len(track.level)
    curves = (("peak", 2 * decibels(track.peak)), ("level", decibels(track.level)))
    paths = "".join(f'<path class="{kind}" d="{_area(level)}"/>' for kind, level in curves)
    return (
        f'<svg viewBox="0 0 {count} {_FLOOR_DB:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="Level over time of {_text(track.name)}">{paths}</svg>'
    )


def _area(level_db: npt.NDArray[np.float64]) -> str:
    """Returns the path of a curve, filled down to the floor."""
    heights = (-level_db).clip(0, _FLOOR_DB).round().astype(int)
    changes = np.flatnonzero(np.diff(heights, prepend=-1))
    steps = "".join(f"H{at}V{heights[at]}" for at in changes)
    return f"M0 {_FLOOR_DB:g}{steps}H{len(heights)}V{_FLOOR_DB:g}Z"


def _strip(name: str, active: npt.NDArray[np.bool_]) -> str:
    edges = np.flatnonzero(np.diff(active.astype(int), prepend=0, append=0)).reshape(-1, 2)
    path = "".join(f"M{start} 0H{stop}V1H{start}Z" for start, stop in edges)
    return (
        f'<svg class="strip" viewBox="0 0 {len(active)} 1" preserveAspectRatio="none" role="img" '
        f'aria-label="{name} is active {active.mean():.0%} of the time">'
        f'<path class="active" d="{path}"/></svg>'
    )


def _axis(seconds: float) -> str:
    step = next((step for step in _STEPS_S if seconds / step <= _MOST_TICKS), seconds or 1)
    marks = np.arange(0, seconds * 0.97, step)
    return "".join(
        f'<span style="left:{mark / seconds:.3%}">{_length(mark, step)}</span>' for mark in marks
    )


def _figures(track: Track, first: Track) -> str:
    active = track.is_active(first.mean_square).mean()
    peak, level = _db(float(track.peak.max()) ** 2), _db(track.mean_square)
    cells = (peak, level, f"{track.clipped:,}", f"{active:.0%}")
    row = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{_text(track.name)}</th>{row}</tr>'


def _sum(recording: Recording) -> str:
    error = recording.sum_error
    if error is None:
        return "The song itself was not kept, so the sum of the stems is not compared with it."
    if error == 0:
        return "The stems sum to the song exactly."
    return (
        f"The stems sum to the song; the largest difference is {error:.1e} "
        f"({_db(error**2)} of full scale)."
    )


def _notes(recording: Recording) -> Iterator[str]:
    form, seconds = recording.form, recording.audio_seconds
    if seconds < recording.seconds - 0.5:
        yield (
            f"The audio ends after {_length(seconds)} of {_length(recording.seconds)}: the rest "
            "would exceed the size of the page. Pictures and figures are of the whole song."
        )
    channels = "one channel" if form.channels == 1 else f"{form.channels} channels"
    bits = (
        f"{BITS} bits" if recording.audio_bits == BITS else f"{recording.audio_bits} bits or more"
    )
    yield (
        f"The audio has {form.sample_rate:,} Hz, {channels} and {bits} per sample: it is for "
        "listening here. The stems themselves have the song's rate and channels."
    )
    yield (
        f"A column of the pictures and curves stands for {recording.column_seconds:.2g} s"
        + (
            f"; the pictures show {recording.frame_seconds:.2g} s of every "
            f"{recording.hop_seconds:.2g} s."
            if recording.frame_seconds < 0.99 * recording.hop_seconds
            else "."
        )
    )
    yield (
        f"Pictures span {RANGE_DB:.0f} dB, and curves {_FLOOR_DB:.0f} dB from full scale. Levels "
        f"are in dB of full scale. A stem counts as active where its level is at most "
        f"{ACTIVE_DB:.0f} dB below the average of the song. Samples at or beyond full scale count "
        "as clipped."
    )


def _table(title: str, rows: Mapping[str, str]) -> str:
    lines: Iterable[str] = (
        f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<section><h2>{_text(title)}</h2><table>{''.join(lines)}</table></section>"


def _db(power: float) -> str:
    return f"{decibels(power) + 0.0:.1f} dB".replace("-0.0", "0.0") if power > 0 else "silent"


def _length(seconds: float, step: float = 1) -> str:
    """Formats a time: 3:07:05, 7:05, or 0:00.5 where the step is below a second."""
    if step < 1:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
