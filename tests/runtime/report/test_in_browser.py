"""A report in a real browser, from a file and without a network."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bsmamba2.report.notebook import framed
from bsmamba2.report.page import page
from bsmamba2.report.recorder import Recorder
from support.browser import Browser, browsing, needs_browser

pytestmark = needs_browser

RATE, SECONDS = 8000, 30
TITLE = "<img src=x onerror=document.title='run'> & \"a\".wav"
NAMES = ["vocals</h2><b>", "instrumental"]
TAB, ENTER, RIGHT = "\ue004", "\ue007", "\ue014"


@functools.cache
def report() -> str:
    recorder = Recorder(NAMES, RATE, 2, RATE * SECONDS, 2_000_000)
    time = np.arange(RATE * SECONDS) / RATE
    tones = 0.25 * np.sin(2 * np.pi * np.array([[220.0], [330.0]]) * time)
    recorder.push(np.repeat(tones[:, np.newaxis], 2, axis=1))
    return page(recorder.finish(), TITLE, {"Song": {"File": TITLE}})


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def opened(tab: Browser, tmp_path: Path) -> Iterator[Browser]:
    """The report, just opened; the test fails if the browser logs an error."""
    path = tmp_path / "a report #1.html"
    path.write_text(report(), encoding="utf-8")
    tab.errors()
    tab.open(path)
    yield tab
    assert tab.errors() == []


def heard(tab: Browser) -> list[bool]:
    """Which stems sound."""
    return [level > 0.01 for level in tab.run("return levels()")]


def position(tab: Browser) -> float:
    return float(tab.find("#position").get_attribute("value"))


def focused(tab: Browser) -> Any:
    return tab.driver.switch_to.active_element


def test_all_stems_play_until_they_are_paused(opened: Browser) -> None:
    opened.play()
    opened.until(lambda: heard(opened) == [True, True] and position(opened) > 0.3)
    opened.find("#play").click()
    stopped = position(opened)
    opened.until(lambda: heard(opened) == [False, False])
    assert position(opened) == stopped


def test_solo_and_mute_choose_what_sounds(opened: Browser) -> None:
    opened.play()
    solo, mute = opened.all(".solo"), opened.all(".mute")
    for button, expected in (
        (solo[1], [False, True]),
        (solo[0], [True, True]),
        (solo[1], [True, False]),
        (solo[0], [True, True]),
        (mute[0], [False, True]),
        (mute[1], [False, False]),
    ):
        button.click()
        opened.until(lambda expected=expected: heard(opened) == expected)  # type: ignore[misc]


def test_keys_play_pause_and_move(opened: Browser) -> None:
    opened.press(" ")
    opened.until(lambda: opened.find("#play").text == "Pause")
    opened.press(" ")
    at = position(opened)
    opened.press(RIGHT)
    assert position(opened) == pytest.approx(at + 5, abs=0.15)
    opened.press(TAB, TAB)  # the play button, then the position
    opened.press(RIGHT)
    assert position(opened) == pytest.approx(at + 10, abs=0.15)


def test_tab_reaches_every_control_in_order(opened: Browser) -> None:
    labels = []
    for _ in range(6):
        opened.press(TAB)
        labels.append(focused(opened).get_attribute("aria-label") or focused(opened).text)
    solos_and_mutes = [f"{verb} {name}" for name in NAMES for verb in ("Solo", "Mute")]
    assert labels == ["Play", "Position", *solos_and_mutes]
    opened.press(ENTER)
    assert focused(opened).get_attribute("aria-pressed") == "true"


def test_a_click_on_a_spectrogram_moves_there(opened: Browser) -> None:
    opened.find(".view").click()  # in its middle
    assert position(opened) == pytest.approx(SECONDS / 2, abs=0.3)


def test_playing_ends_at_the_start(opened: Browser) -> None:
    opened.run("arguments[0].value = 29.5; arguments[0].dispatchEvent(new Event('input'))",
               opened.find("#position"))  # fmt: skip
    opened.play()
    opened.until(lambda: opened.find("#play").text == "Play")
    assert position(opened) == 0


def test_names_are_text(opened: Browser) -> None:
    assert opened.find("h1").text == TITLE
    assert opened.driver.title == TITLE
    assert [heading.text for heading in opened.all(".track h2")] == ["mixture", *NAMES]
    assert opened.all("b") == []


def test_colours_follow_the_desktop(opened: Browser) -> None:
    lightness = {}
    for is_dark in (False, True):
        opened.dark(is_dark)
        text = "return getComputedStyle(document.body)"
        lightness[is_dark] = [
            sum(map(int, opened.run(f"{text}.{part}.match(/[0-9]+/g).slice(0, 3)")))
            for part in ("backgroundColor", "color")
        ]
    opened.dark(False)
    assert lightness[False][0] > 600 > 200 > lightness[False][1]
    assert lightness[True][0] < 200 < 600 < lightness[True][1]


def test_a_frame_in_a_notebook_plays_too(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><title>a</title>{framed(report(), 3)}", encoding="utf-8")
    tab.open(path)
    tab.driver.switch_to.frame(tab.find("iframe"))
    tab.play()
    tab.until(lambda: position(tab) > 0.3)
    tab.driver.switch_to.default_content()
    assert tab.run("return document.documentElement.scrollWidth <= window.innerWidth")
