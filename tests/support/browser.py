"""A real browser, Chromium without a window, that cannot reach anything but this machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs chromium and chromium-driver (Debian)"
)

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which root cannot use
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--window-size=1200,1400",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
# The power of what each stem sends to the speakers, measured outside the page's own script.
_METERS = """
window.meters = [];
const create = AudioContext.prototype.createGain;
AudioContext.prototype.createGain = function () {
  const gain = create.call(this), meter = this.createAnalyser();
  gain.connect(meter);
  window.meters.push(meter);
  return gain;
};
window.levels = () => window.meters.map((meter) => {
  const samples = new Float32Array(meter.fftSize);
  meter.getFloatTimeDomainData(samples);
  return Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
});
"""

_WATCH = """
const button = document.querySelector("#play");
window.played = null;
button.addEventListener("click", () => { window.clicked = performance.now(); }, true);
new MutationObserver(() => {
  if (button.textContent === "Pause") window.played ??= performance.now() - window.clicked;
}).observe(button, {childList: true});
"""

Value = TypeVar("Value")


class Browser:
    """A tab, with what tests ask of it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str | Path) -> None:
        """Opens an address or a file."""
        self.driver.get(address.as_uri() if isinstance(address, Path) else address)

    def find(self, selector: str) -> Any:
        """Returns the first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        """Returns all elements of a CSS selector."""
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def run(self, script: str, *arguments: object) -> Any:
        """Runs JavaScript in the page and returns its value."""
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        """Presses keys one after the other, wherever the focus is."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def until(self, condition: Callable[[], Value], seconds: float = 300) -> Value:
        """Waits until a condition holds and returns its value; fails if it never does."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.1)
        return value

    def play(self) -> float:
        """Plays a report; returns the seconds until it began, which a slow machine may see late."""
        self.run(_WATCH)
        self.find("#play").click()
        return float(self.until(lambda: self.run("return window.played"))) / 1000

    def errors(self) -> list[str]:
        """Returns the errors and warnings that the browser logged since the last call."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]

    def dark(self, is_dark: bool) -> None:
        """Switches between a light and a dark desktop."""
        value = "dark" if is_dark else "light"
        features = [{"name": "prefers-color-scheme", "value": value}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@contextmanager
def browsing() -> Iterator[Browser]:
    """Opens a browser of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _METERS})
        yield Browser(driver)
    finally:
        driver.quit()
