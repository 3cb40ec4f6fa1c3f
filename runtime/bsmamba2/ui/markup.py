"""The HTML of a job: its progress, its files and its report. Every name in it is escaped."""

from __future__ import annotations

from html import escape
from pathlib import Path

from bsmamba2.errors import one_line
from bsmamba2.report.notebook import frame_height
from bsmamba2.ui.job import Job, Phase, Result, Status

CSS = """
.progress progress {
  width: 100%; height: .75rem; appearance: none; border: 0; border-radius: .4rem; overflow: hidden;
  background: var(--border-color-primary); accent-color: var(--primary-500);
}
.progress progress::-webkit-progress-bar { background: var(--border-color-primary); }
.progress progress::-webkit-progress-value { background: var(--primary-500); }
.progress progress::-moz-progress-bar { background: var(--primary-500); }
.results h3 { margin: 1rem 0 .25rem; overflow-wrap: anywhere; }
.results ul { margin: 0; padding-left: 1.25rem; }
.error { color: #b3261e; overflow-wrap: anywhere; }
.dark .error { color: #ff9d94; }
.report { width: 100%; border: 0; border-radius: .5rem; }
footer { display: none !important; }
"""


def message(text: str) -> str:
    """Returns a sentence where the progress is shown."""
    return f'<div class="progress"><p role="status">{_text(text)}</p></div>'


def progress(status: Status, total: int) -> str:
    """Returns what the job is doing, a bar, and the time that is left."""
    if status.phase is Phase.FAILED:
        return (
            f'<div class="progress"><p class="error" role="alert">{_text(status.error)}</p></div>'
        )
    failed = sum(bool(result.error) for result in status.results)
    if status.phase is Phase.DONE:
        made = len(status.results) - failed
        text = f"Done: {_songs(made)}" + (f", {failed} failed" if failed else "") + "."
        return message(text)
    if status.phase is Phase.CANCELLED:
        return message("Cancelled.")
    text = status.phase.value.capitalize()
    if status.phase is not Phase.SEPARATING:
        return f'<div class="progress"><p role="status">{text} …</p><progress></progress></div>'
    if total > 1:
        text += f" song {status.number} of {total}"
    left = "" if status.left_s is None else f", about {_clock(status.left_s)} left"
    return (
        f'<div class="progress"><p role="status">{text}: {_text(status.song)}</p>'
        f'<progress max="1" value="{status.fraction:.4f}" aria-label="Progress"></progress>'
        f"<p>{status.fraction:.0%}{left}</p></div>"
    )


def files(token: str, status: Status) -> str:
    """Returns the downloads of each song, or the sentence that says why there are none."""
    songs = "".join(_song(token, row, result) for row, result in enumerate(status.results))
    return f'<div class="results">{songs}</div>' if songs else ""


def report(token: str, row: int, result: Result) -> str:
    """Returns the report of a song in a frame, which reaches neither this page nor the network."""
    if result.report is None:
        return ""
    return (
        f'<iframe class="report" title="Report of {_text(result.name)}" sandbox="allow-scripts" '
        f'src="{report_path(token, row)}" style="height: {frame_height(result.tracks)}px"></iframe>'
    )


def report_path(token: str, row: int) -> str:
    """Returns the path of a report on the server."""
    return f"/results/{token}/{row}/report"


def found(job: Job | None, row: int, file: int) -> Path | None:
    """Returns a file of a job by its numbers; None if there is none."""
    results = job.status.results if job else ()
    if not 0 <= row < len(results) or not 0 <= file < len(results[row].files):
        return None
    return results[row].files[file]


def _song(token: str, row: int, result: Result) -> str:
    heading = f"<h3>{_text(result.name)}</h3>"
    if result.error:
        return f'{heading}<p class="error" role="alert">{_text(result.error)}</p>'
    links = [
        f'<li><a href="/results/{token}/{row}/{file}" download>{_text(path.name)}</a> '
        f"({path.stat().st_size / 1e6:.1f} MB)</li>"
        for file, path in enumerate(result.files)
        if path.exists()
    ]
    if result.report:
        page = f"{report_path(token, row)}?download=1"
        links.append(f'<li><a href="{page}" download>{_text(result.report.name)}</a></li>')
    return f"{heading}<ul>{''.join(links)}</ul>"


def _songs(count: int) -> str:
    return f"{count} song{'s' * (count != 1)}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _text(text: str) -> str:
    """Escapes a name from outside; bytes that are not text become a replacement character."""
    return escape(one_line(text).encode("utf-8", "replace").decode())
