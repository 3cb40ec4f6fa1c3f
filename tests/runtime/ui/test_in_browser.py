"""``bsmamba2 ui`` in a real browser, which reaches only this machine."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from support.browser import Browser, browsing, needs_browser
from support.fixtures import WriteSong
from support.ui_server import UiServer, ui_server

pytestmark = needs_browser

HOSTILE = "<img src=x onerror=document.title='run'>&'"
SECOND = 44100


@pytest.fixture(scope="module")
def chromium(ui: UiServer) -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def page(chromium: Browser, ui: UiServer) -> Iterator[Browser]:
    """The page in a tab of its own; the test fails if the browser logs an error."""
    first = chromium.driver.current_window_handle
    open_page(chromium, ui)
    yield chromium
    assert errors(chromium) == []
    for tab in chromium.driver.window_handles:
        chromium.driver.switch_to.window(tab)
        if tab != first:
            chromium.driver.close()
    chromium.driver.switch_to.window(first)
    chromium.until(lambda: ui.kept_files() == [])


def errors(chromium: Browser) -> list[str]:
    """Returns what the browser logged, without what every page of gradio logs."""
    return [line for line in chromium.errors() if "Method not implemented" not in line]


def open_page(chromium: Browser, ui: UiServer) -> str:
    """Opens the page in a new tab; returns the tab."""
    chromium.driver.switch_to.new_window("tab")
    chromium.open(ui.url)
    chromium.until(lambda: chromium.all("#songs input[type=file]"))
    return str(chromium.driver.current_window_handle)


def separate(page: Browser, *songs: Path) -> None:
    page.find("#songs input[type=file]").send_keys("\n".join(map(str, songs)))
    sizes = re.compile(r"[0-9] ?[KMG]?B\b")
    page.until(lambda: len(sizes.findall(page.find("#songs").text)) == len(songs))
    page.find("#separate").click()


def progress(page: Browser) -> str:
    return str(page.find("#progress").text)


def test_a_stranger_drops_songs_hears_the_stems_and_downloads_them(
    page: Browser, song: WriteSong, tmp_path: Path, ui: UiServer
) -> None:
    hostile = tmp_path / "hostile.mp3"
    hostile.write_bytes(b"no audio" * 100)
    separate(page, song("first.wav", samples=2 * SECOND), hostile, song(f"{HOSTILE}.wav"))
    page.until(lambda: " left" in progress(page))
    page.until(lambda: progress(page) == "Done: 2 songs, 1 failed.")

    headings = [heading.text for heading in page.all("#files h3")]
    assert headings[:2] == ["first.wav", "hostile.mp3"]
    assert "hostile.mp3 is not audio" in page.find("#files .error").text
    assert str(ui.temporary) not in page.find("body").text
    links = [link.get_attribute("href") for link in page.all("#files a")]
    stem = requests.get(links[0], timeout=300)
    assert stem.content.startswith(b"RIFF")
    assert 'filename="first_vocals.wav"' in stem.headers["content-disposition"]

    assert page.driver.title == "bsmamba2"
    assert page.all("img[src=x]") == []
    resources = "return performance.getEntriesByType('resource').map(each => each.name)"
    assert [name for name in page.run(resources) if not name.startswith(ui.url)] == []

    listen(page, "first.wav")
    page.all("#shown input")[1].click()
    page.until(lambda: "/2/report" in page.find("iframe.report").get_attribute("src"))
    listen(page, headings[2])


def listen(page: Browser, title: str) -> None:
    """Plays the report that is shown."""
    page.driver.switch_to.frame(page.find("iframe.report"))
    assert page.until(lambda: page.all("h1"))[0].text == title
    page.play()
    page.driver.switch_to.default_content()


def test_cancel_stops_and_another_song_can_follow(
    page: Browser, song: WriteSong, ui: UiServer
) -> None:
    separate(page, song("long.wav", samples=60 * SECOND))
    page.until(lambda: " left" in progress(page))
    page.find("#cancel").click()
    page.until(lambda: progress(page) == "Cancelled.")
    runs = ui.count_runs()
    page.find("[aria-label='Clear'], [title='Clear']").click()
    separate(page, song("short.wav", samples=1000))
    page.until(lambda: progress(page) == "Done: 1 song.")
    assert ui.count_runs() < runs + 4


def test_closing_the_tab_cancels_and_removes_the_files(
    page: Browser, song: WriteSong, ui: UiServer
) -> None:
    first = page.driver.current_window_handle
    tab = open_page(page, ui)
    separate(page, song("long.wav", samples=600 * SECOND))
    page.until(lambda: " left" in progress(page))
    page.driver.close()
    page.driver.switch_to.window(first)
    assert tab not in page.driver.window_handles

    page.until(lambda: is_idle(ui))
    page.until(lambda: ui.kept_files() == [])


def is_idle(ui: UiServer) -> bool:
    """Whether no chunk is separated for two seconds; a chunk takes 0.1."""
    before = ui.count_runs()
    time.sleep(2)
    return ui.count_runs() == before


def test_two_visitors_at_once_do_not_mix(page: Browser, song: WriteSong, ui: UiServer) -> None:
    tabs = {"one": page.driver.current_window_handle, "two": open_page(page, ui)}
    for name, tab in tabs.items():
        page.driver.switch_to.window(tab)
        separate(page, song(f"{name}.wav", samples=3 * SECOND))
    page.until(lambda: progress(page).startswith(("Waiting", "Separating: two", "Done")))
    addresses = {}
    for name, tab in tabs.items():
        page.driver.switch_to.window(tab)
        page.until(lambda: progress(page) == "Done: 1 song.")
        assert [heading.text for heading in page.all("#files h3")] == [f"{name}.wav"]
        addresses[name] = page.find("#files a").get_attribute("href")
        stem = requests.get(addresses[name], timeout=300)
        assert f'filename="{name}_vocals.wav"' in stem.headers["content-disposition"]
    tokens = {address.split("/")[-3] for address in addresses.values()}
    assert len(tokens) == 2


def test_an_open_tab_that_is_not_used_loses_its_songs_and_says_so(
    chromium: Browser, song: WriteSong, tmp_path: Path
) -> None:
    with ui_server(tmp_path, "--idle-hours", "0.02") as server:
        open_page(chromium, server)
        separate(chromium, song("short.wav", samples=SECOND))
        chromium.until(lambda: progress(chromium) == "Done: 1 song.")
        address = chromium.find("#files a").get_attribute("href")
        assert server.kept_files() != []
        server.let_pass(100)
        chromium.until(lambda: "was not used for 0.02 h" in progress(chromium))
        assert server.kept_files() == []
        assert requests.get(address, timeout=300).status_code == 404
        assert (chromium.all("#files a"), chromium.all("iframe.report")) == ([], [])
        chromium.until(lambda: chromium.all("#songs input[type=file]"))  # another song can follow
        assert errors(chromium) == []
        chromium.driver.close()
        chromium.driver.switch_to.window(chromium.driver.window_handles[0])


def test_a_song_for_which_there_is_no_room_is_refused_in_a_sentence(
    chromium: Browser, song: WriteSong, tmp_path: Path
) -> None:
    with ui_server(tmp_path, "--disk-gb", "0.0006") as server:
        open_page(chromium, server)
        chromium.find("#songs input[type=file]").send_keys(
            str(song("large.wav", samples=4 * SECOND))
        )
        chromium.until(lambda: "with more disk space" in chromium.find("body").text)
        assert server.kept_files() == []
        separate(chromium, song("small.wav", samples=2 * SECOND))
        chromium.until(lambda: progress(chromium) == "Done: 0 songs, 1 failed.")
        assert "with more disk space" in chromium.find("#files .error").text
        chromium.driver.close()
        chromium.driver.switch_to.window(chromium.driver.window_handles[0])
