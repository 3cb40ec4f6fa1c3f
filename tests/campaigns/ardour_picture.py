"""A picture of the plugin in Ardour's window: python tests/campaigns/ardour_picture.py

Opens a session with the plugin on a track in Ardour 7, on a virtual screen, and opens the plugin's
generic editor. Writes docs/images/ardour.png. The model is a stub with the names of a real one. It
needs Debian's ardour, xvfb, xdotool and imagemagick.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from bsmamba2_pedalboard.commands import install_bundle
from bsmamba2_pedalboard.server import OFFERS
from support import ardour
from support.engines import half
from support.serving import serving

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "ardour.png"
DISPLAY = ":77"
TOOLS = ("ardour", "Xvfb", "xdotool", "import", "convert")
CONFIG = """<?xml version="1.0" encoding="UTF-8"?>
<Ardour>
  <Config>
    <Option name="hide-dummy-backend" value="0"/>
    <Option name="try-autostart-engine" value="1"/>
  </Config>
  <Extra><AudioMIDISetup><EngineStates>
    <State backend="None (Dummy)" driver="Normal Speed" device="" input-device="Silence"
      output-device="Silence" sample-rate="44100" buffer-size="1024" n-periods="0"
      input-latency="0" output-latency="0" input-channels="0" output-channels="0" active="1"
      use-buffered-io="0" midi-option="1 in, 1 out, Silence" lm-input="" lm-output="" lru="1"/>
  </EngineStates></AudioMIDISetup></Extra>
</Ardour>
"""
CENTRE = (640, 400)
OK_BUTTON, START_BUTTON = (812, 440), (846, 561)
TRACK, PROCESSOR = (60, 344), (60, 190)
EDITOR = "936x232+0+54"
"""Where the editor appears without a window manager; the main window's menu covers its top."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patience", type=float, default=4, help="Seconds per step. Default: 4.")
    patience = parser.parse_args().patience
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if reason := ardour.missing() or (f"not installed: {', '.join(missing)}" if missing else None):
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        server = Path(folder, "s")
        server.mkdir(mode=0o700)
        os.environ |= {"BSMAMBA2_SERVE_DIR": str(server), "DISPLAY": DISPLAY}
        with serving(half, name="bs_mamba2_vocals", headroom_ms=3000, chunk=22050):
            host, session = prepare(Path(folder), (server / OFFERS).read_text())
            photograph(host, session, patience)


def prepare(folder: Path, offers: str) -> tuple[ardour.Ardour, Path]:
    """Creates a session with a song on two tracks."""
    host = ardour.Ardour(folder / "home")
    bundle = install_bundle(["/bin/false"], offers, folder / "home" / ".vst3")
    host.scan(bundle)
    config = folder / "home" / ".config" / "ardour7"
    config.mkdir(parents=True)
    (config / "config").write_text(CONFIG)
    (config / ".a7").touch()  # no introduction
    times = np.arange(60 * ardour.RATE) / ardour.RATE
    songs = [np.tile(0.3 * np.sin(2 * np.pi * hertz * times), (2, 1)) for hertz in (220, 330)]
    return host, host.create(folder / "song", [song.astype(np.float32) for song in songs])


def photograph(host: ardour.Ardour, session: Path, patience: float) -> None:
    """Opens the editor and writes its picture."""
    screen = subprocess.Popen(["Xvfb", DISPLAY, "-screen", "0", "1280x800x24"])
    time.sleep(patience)
    window = subprocess.Popen(["ardour", "-n", "-a", session], env=host.environment)
    try:
        click_until("Audio/MIDI Setup", OK_BUTTON)  # the session knows another audio device
        click_until(f"{session.name} - Ardour", START_BUTTON)
        time.sleep(10 * patience)
        click(TRACK)
        tool("search", "--name", f"{session.name} - Ardour", "windowfocus")
        tool("key", "shift+e")  # the mixer strip of the track
        time.sleep(3 * patience)
        click(PROCESSOR, "--repeat", "2", "--delay", "60")
        time.sleep(4 * patience)
        PICTURE.parent.mkdir(exist_ok=True)
        subprocess.run(["import", "-window", "root", PICTURE], check=True)
        subprocess.run(
            ["convert", PICTURE, "-crop", EDITOR, "+repage", "-colors", "64", PICTURE], check=True
        )
    finally:
        for process in (window, screen):
            process.terminate()
            process.wait()


def click_until(name: str, place: tuple[int, int], seconds: float = 300) -> None:
    """Clicks at a place on the screen, where a button appears, until it has opened a window."""
    deadline = time.monotonic() + seconds
    while not tool("search", "--onlyvisible", "--name", name):
        if time.monotonic() > deadline:
            sys.exit(f"no window is called {name}")
        click(place)
        tool("mousemove", *map(str, CENTRE))  # dialogs appear around the mouse
        time.sleep(2)


def click(place: tuple[int, int], *options: str) -> None:
    tool("mousemove", *map(str, place))
    tool("click", *options, "1")


def tool(*arguments: str) -> str:
    result = subprocess.run(["xdotool", *arguments], capture_output=True, text=True, check=False)
    return result.stdout


if __name__ == "__main__":
    main()
