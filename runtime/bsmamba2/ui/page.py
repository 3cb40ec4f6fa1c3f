"""The page: what is on it, and what its buttons do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from bsmamba2.ui import choices, markup
from bsmamba2.ui.job import Result, Settings
from bsmamba2.ui.sessions import Sessions
from bsmamba2.ui.storage import HOUR_S

TITLE = "bsmamba2"
INTRODUCTION = """
# Separate songs
Drop songs, choose a model, and listen to the stems. Everything stays on this machine: songs, stems
and settings are sent nowhere. Closing or reloading this tab stops the separation and removes your
songs and stems from this page's folder, and so does leaving it unused for {hours:g} h. Download
what you want to keep.
"""
EXPIRED = (
    "Your songs and stems were removed, because this tab was not used for {hours:g} h: drop the "
    "songs again."
)
THEME = gr.themes.Default(  # its own fonts would be loaded from the network
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)

_INTERVAL_S = 0.3


def build(sessions: Sessions, names: Sequence[str], device: str = "auto") -> gr.Blocks:
    """Returns the page.

    Args:
        sessions: separates the songs of its visitors.
        names: of the models to choose from; the first is preselected.
        device: preselected.
    """
    devices = list(dict.fromkeys([device, *choices.devices()]))
    idle_s = sessions.limits.idle_s
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION.format(hours=idle_s / HOUR_S))
        songs = gr.File(label="Songs", file_count="multiple", elem_id="songs")
        with gr.Row():
            model = gr.Dropdown(list(names), value=names[0], label="Model", elem_id="model")
            format = gr.Dropdown(list(choices.FORMATS), label="Format", elem_id="format")
            used = gr.Dropdown(devices, value=device, label="Device", elem_id="device")
        stems = _stems(names[0])
        with gr.Row():
            separate = gr.Button("Separate", variant="primary", elem_id="separate")
            cancel = gr.Button("Cancel", interactive=False, elem_id="cancel")
        progress = gr.HTML(elem_id="progress")
        files = gr.HTML(elem_id="files")
        shown = gr.Radio([], label="Show the report of", visible=False, elem_id="shown")
        report = gr.HTML(elem_id="report")

        def run(
            paths: list[str] | None,
            model: str,
            device: str,
            stems: list[str],
            format: str,
            request: gr.Request,
        ) -> Iterator[dict[Any, Any]]:
            if not paths or not stems:
                missing = "Choose at least one stem." if paths else "Drop a song first."
                yield {progress: markup.message(missing)}
                return
            uploaded = [Path(path) for path in paths]
            if not all(map(sessions.storage.is_upload, uploaded)) or model not in names:
                yield {progress: markup.message("Reload this page, and drop the songs again.")}
                return
            settings = Settings(model, device, tuple(stems), choices.FORMATS[format])
            session = _session(request)
            token, job = sessions.start(session, uploaded, settings)
            yield {
                separate: gr.Button(interactive=False),
                cancel: gr.Button(interactive=True),
                files: "",
                shown: gr.Radio([], visible=False),
                report: "",
            }
            known = 0
            while True:
                status = job.wait(_INTERVAL_S)
                changes: dict[Any, Any] = {progress: markup.progress(status, job.total)}
                if len(status.results) > known:
                    had = _playable(status.results[:known])
                    known = len(status.results)
                    playable = _playable(status.results)
                    changes[files] = markup.files(token, status)
                    changes[shown] = gr.Radio(playable, visible=len(playable) > 1)
                    if playable and not had:  # the report that is heard stays as it is
                        first = playable[0][1]
                        changes[shown] = gr.Radio(playable, value=first, visible=len(playable) > 1)
                        changes[report] = markup.report(token, first, status.results[first])
                if status.has_ended:
                    changes[separate] = gr.Button(interactive=True)
                    changes[cancel] = gr.Button(interactive=False)
                yield changes
                if status.has_ended:
                    return

        def show(row: int, request: gr.Request) -> str:
            found = sessions.of_session(_session(request))
            results = found[1].status.results if found else ()
            if not found or not 0 <= row < len(results):
                return ""
            return markup.report(found[0], row, results[row])

        def stop(request: gr.Request) -> None:
            sessions.cancel(_session(request))

        def keep(paths: list[str] | None, request: gr.Request) -> None:
            sessions.keep(_session(request), [Path(path) for path in paths or ()])

        def notice(request: gr.Request) -> dict[Any, Any]:
            if not sessions.has_expired(_session(request)):
                return {progress: gr.skip()}  # gradio refuses an empty dict
            return {
                songs: None,
                progress: markup.message(EXPIRED.format(hours=idle_s / HOUR_S)),
                files: "",
                shown: gr.Radio([], visible=False),
                report: "",
            }

        def leave(request: gr.Request) -> None:
            sessions.close(_session(request))

        songs.change(keep, songs, queue=False, show_progress="hidden", api_visibility="private")
        separate.click(
            run,
            [songs, model, used, stems, format],
            [separate, cancel, progress, files, shown, report],
            show_progress="hidden",
            concurrency_limit=None,  # jobs wait for each other, and can be cancelled meanwhile
            api_visibility="private",
        )
        cancel.click(stop, queue=False, show_progress="hidden", api_visibility="private")
        shown.input(show, shown, report, show_progress="hidden", api_visibility="private")
        model.input(_stems, model, stems, show_progress="hidden", api_visibility="private")
        gr.Timer(min(30.0, idle_s / 4)).tick(
            notice,
            outputs=[songs, progress, files, shown, report],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        page.unload(leave)
    return page


def _stems(model: str) -> gr.CheckboxGroup:
    names = list(choices.stems(model))
    return gr.CheckboxGroup(names, value=names, label="Stems", elem_id="stems")


def _playable(results: Sequence[Result]) -> list[tuple[str, int]]:
    """Returns the songs that have a report, with their rows."""
    return [(result.name, row) for row, result in enumerate(results) if result.report]


def _session(request: gr.Request) -> str:
    return str(request.session_hash)
