"""Stems in a notebook: players and spectrograms in a frame."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest

from bsmamba2 import Separator
from bsmamba2.report.notebook import SIZE_MB, frame, frame_height, framed
from support.engines import Stubs
from support.fixtures import Noise


def test_stems_show_themselves_with_a_row_for_each_stem(stub: Stubs, noise: Noise) -> None:
    stems = Separator(stub.half())(noise(2, 9000), 44100)
    shown = stems._repr_html_()
    inside = html.unescape(shown)
    assert re.findall(r'<section class="track"[^>]* aria-label="(\w+)"', inside) == [
        "mixture",
        "vocals",
        "instrumental",
    ]
    assert "The song itself was not kept" in inside


def test_chosen_stems_have_no_sum(stub: Stubs, noise: Noise) -> None:
    stems = Separator(stub.half())(noise(2, 9000), 44100, stems=["vocals"])
    assert 'aria-label="mixture"' not in html.unescape(stems._repr_html_())


def test_no_audio_is_text(stub: Stubs) -> None:
    stems = Separator(stub.half())(np.zeros((2, 1), np.float32), 44100)
    assert "<iframe" in stems._repr_html_()


def test_the_frame_keeps_script_and_names_inside() -> None:
    shown = framed("<script>\"'</script>", 2)
    assert shown.count("<") == 2
    assert 'sandbox="allow-scripts"' in shown
    assert html.unescape(shown.split('"')[1]) == "<script>\"'</script>"


def test_more_tracks_need_a_higher_frame() -> None:
    assert frame_height(3) > frame_height(2) > 300


@pytest.mark.parametrize("seconds", [1, 60])
def test_what_a_notebook_keeps_is_bounded(seconds: int) -> None:
    audio = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 1, 8000 * seconds))
    shown = frame(audio.astype(np.float32), ["a", "b"], 8000, "noise", True)
    assert len(html.unescape(shown)) <= SIZE_MB * 1e6 + 1000
