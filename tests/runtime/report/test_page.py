"""The page: complete in one file, within its size, and safe from any name."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bsmamba2.report.page import page
from bsmamba2.report.recorder import Recorder, Recording

RATE = 8000
HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "{{script}}{{audio}}",
    "<!--<script>",
    "a&amp;b\u2028\x00\x1b[31m",
    "caf\udce9.wav",
]


def recorded(
    seconds: float = 1, stems: int = 2, max_bytes: int = 1_000_000, gain: float = 0.3
) -> Recording:
    names = [f"stem{row}" for row in range(stems)]
    recorder = Recorder(names, RATE, 2, round(seconds * RATE), max_bytes)
    random = np.random.default_rng(0)
    for _ in range(round(seconds * 4)):
        audio = random.uniform(-gain, gain, (stems, 2, RATE // 4))
        recorder.expect(audio.sum(axis=0))
        recorder.push(audio)
    return recorder.finish()


RECORDING = recorded()


class Reader(HTMLParser):
    """Collects the tags, attributes, text and scripts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._kind = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._kind = "script" if tag == "script" and not attrs else ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self._kind == "script" else self.text).append(data)
        self._kind = ""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_changes_nothing_but_text(name: str) -> None:
    plain, hostile = (
        Reader(page(RECORDING, title, {title: {title: title}})) for title in ("plain", name)
    )
    assert hostile.tags == plain.tags
    assert hostile.scripts == plain.scripts
    assert [key for key, _ in hostile.attributes] == [key for key, _ in plain.attributes]


@settings(max_examples=20)
@given(st.text(max_size=60))
def test_no_text_adds_a_tag(name: str) -> None:
    assert Reader(page(RECORDING, name, {})).tags == Reader(page(RECORDING, "plain", {})).tags


def test_only_the_script_of_the_page_may_run() -> None:
    html = page(RECORDING, "a", {})
    (script,) = Reader(html).scripts
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in html
    assert "default-src 'none'" in html


def test_the_page_refers_to_nothing_outside() -> None:
    attributes = Reader(page(RECORDING, "a", {})).attributes
    links = [value for key, value in attributes if key in ("src", "href", "action", "srcset")]
    assert links
    assert all(value and value.startswith("data:") for value in links)


def test_every_control_and_picture_has_a_name() -> None:
    html = page(RECORDING, "a", {})
    buttons = re.findall(r"<button[^>]*>([^<]*)</button>", html)
    assert buttons == ["Play", *["Solo", "Mute"] * 2]
    assert len(re.findall(r'aria-label="(?:Solo|Mute) stem\d"', html)) == 4
    assert len(re.findall(r'<img alt="Spectrogram of [^"]+"', html)) == 3


@pytest.mark.parametrize(("stems", "max_bytes"), [(1, 1_000_000), (17, 1_000_000), (3, 2_000_000)])
def test_a_page_of_noise_is_within_its_size(stems: int, max_bytes: int) -> None:
    recording = recorded(30, stems, max_bytes, gain=1 / stems)
    assert len(page(recording, "a", {"Song": {"File": "a" * 200}}).encode()) <= max_bytes


def test_the_figures_state_peaks_sum_and_clipping() -> None:
    recorder = Recorder(["vocals"], RATE, 1, RATE, 1_000_000)
    audio = np.full((1, 1, RATE), 0.5)
    audio[0, 0, :3] = 1
    recorder.expect(audio[0])
    recorder.push(audio)
    html = page(recorder.finish(), "a", {})
    row = re.search(r'<th scope="row">vocals</th>(.*?)</tr>', html)
    assert row
    assert re.findall("<td>(.*?)</td>", row[1]) == ["0.0 dB", "-6.0 dB", "3", "100%"]
    assert "The stems sum to the song exactly." in html


def test_a_long_song_states_what_is_left_out() -> None:
    recorder = Recorder(["a", "b"], RATE, 2, 0, 1_000_000)
    random = np.random.default_rng(0)
    for _ in range(60):
        recorder.push(random.uniform(-0.3, 0.3, (2, 2, 10 * RATE)))
    html = page(recorder.finish(), "a", {})
    assert re.search(r"The audio ends after \d+:\d\d of 10:00", html)
    assert "A column of the pictures and curves stands for" in html


def test_a_short_song_states_its_audio_too() -> None:
    html = page(RECORDING, "a", {})
    assert "The audio ends" not in html
    assert "8,000 Hz, 2 channels" in html
