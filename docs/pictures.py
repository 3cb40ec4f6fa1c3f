"""Draws the pictures of the report and of the local page: ``python docs/pictures.py``.

It needs the extra ``ui``, selenium, and Debian's chromium and chromium-driver. The song is
synthetic, so the pictures may be published.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images"
RATE, SECONDS = 44100, 24
COMMAND = [sys.executable, "-c", "from bsmamba2.cli import main; main(prog_name='bsmamba2')"]

sys.path.insert(0, str(ROOT / "tests"))
from support.browser import Browser, browsing  # noqa: E402


def write_song(path: Path) -> None:
    """Writes chords, a beat, and a voice-like tone that pauses."""
    time, random = np.arange(RATE * SECONDS) / RATE, np.random.default_rng(0)
    chord = sum(0.04 * np.sin(2 * np.pi * hz * time) for hz in (110, 165, 220, 277))
    drum = 0.15 * np.exp(-18 * (time % 0.5)) * np.sin(2 * np.pi * 60 * time)
    hat = 0.04 * np.exp(-40 * ((time + 0.25) % 0.5)) * random.standard_normal(len(time))
    pitch = 220 * 2 ** (np.floor(2 * time) % 5 / 12) + 4 * np.sin(11 * np.pi * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = sum(np.sin(number * phase) / number for number in range(1, 16))
    sings = np.convolve(time % 8 < 5, np.ones(441) / 441, "same")
    song = chord + drum + hat + 0.05 * sings * voice
    soundfile.write(path, np.stack([song, song], axis=1), RATE, "PCM_16")


def draw_report(browser: Browser, song: Path) -> None:
    page = song.with_name("report.html")
    subprocess.run([*COMMAND, "report", song, "-o", page], check=True)
    browser.open(page)
    browser.find(".view").click()
    browser.driver.set_window_size(1200, 1130)
    browser.driver.save_screenshot(str(IMAGES / "report.png"))


def draw_ui(browser: Browser, song: Path) -> None:
    command = [*COMMAND, "ui", "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            browser.open(server.stdout.readline().split()[0])
            browser.until(lambda: browser.all("#songs input[type=file]"))
            browser.find("#songs input[type=file]").send_keys(str(song))
            browser.until(lambda: song.stem in browser.find("#songs").text)
            browser.find("#separate").click()
            browser.until(lambda: browser.find("#progress").text.startswith("Done"))
            browser.driver.switch_to.frame(browser.until(lambda: browser.find("iframe.report")))
            browser.until(lambda: browser.all("#play"))
            browser.driver.switch_to.default_content()
            browser.driver.set_window_size(1200, 1480)
            browser.driver.save_screenshot(str(IMAGES / "ui.png"))
        finally:
            server.terminate()


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browsing() as browser:
        song = Path(folder) / "song.flac"
        write_song(song)
        draw_report(browser, song)
        draw_ui(browser, song)


if __name__ == "__main__":
    main()
