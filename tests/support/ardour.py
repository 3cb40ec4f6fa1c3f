"""Sessions of Ardour 7: made and exported with its Lua interpreter, without a window.

A session has stereo tracks that play WAV files, and the plugin on the first track. Ardour's Lua has
no function that imports audio, so the regions are written into the session's XML.

Ardour connects new tracks to the master bus in another thread, and drops what is left to connect
when the session closes. On a busy machine sessions were saved before that, and all their exports
were silent. So the script connects the tracks itself.

The command ardour7-export 7.3 is not used: it exports before the engine knows its latencies, so on
a busy machine some exports, with all their tracks, are 16 samples early. Ardour fixed this in its
commit 7cb8140b3a.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import soundfile

from bsmamba2.audio.array import Audio

LUA = "ardour7-lua"
SCANNER = Path("/usr/lib/ardour7/ardour-vst3-scanner")
PLUGIN_ID = "62736D616D6261325365706172617465"
RATE = 44100
TICKS = 282_240_000 // RATE
"""Ardour's unit of time, for each sample."""
CYCLES = 100
"""Of the engine before an export, 2 s. Ardour 7.3 hangs if its disk thread still has work then."""
TIMEOUT_SECONDS = 300

CREATE = """
local backend = AudioEngine:set_backend("None (Dummy)", "", "")
backend:set_buffer_size({block})
ARDOUR.config():set_input_auto_connect(ARDOUR.AutoConnectOption.ManualConnect)
ARDOUR.config():set_output_auto_connect(ARDOUR.AutoConnectOption.ManualConnect)
local session = create_session("{folder}", "song", {rate})
assert(session, "no session")
local master = session:master_out():input()
local order, mode = ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal
local first = true
for track in session:new_audio_track(2, 2, nil, {tracks}, "Track", order, mode, true):iter() do
  track:set_strict_io(true)
  for channel = 0, 1 do
    local output, input = track:output():audio(channel), master:audio(channel)
    assert(output:connect(input:name()) == 0, "no connection to the master bus")
  end
  if first then
    local plugin = ARDOUR.LuaAPI.new_plugin(session, "{plugin}", ARDOUR.PluginType.VST3, "")
    assert(not plugin:isnil(), "no plugin")
    assert(track:add_processor_by_index(plugin, 0, nil, true) == 0)
    first = false
  end
end
session:save_state("", false, false, false, false, false)
close_session()
quit()
"""

CHANGE = """
local backend = AudioEngine:set_backend("None (Dummy)", "", "")
backend:set_buffer_size({block})
local session = load_session("{folder}", "song")
assert(session, "no session")
local track = session:route_by_name("Track 1")
local plugin = track:nth_plugin(0)
local insert = plugin:to_insert()
{code}
session:save_state("", false, false, false, false, false)
close_session()
quit()
"""

EXPORT = """
local backend = AudioEngine:set_backend("None (Dummy)", "", "")
backend:set_buffer_size({block})
local session = load_session("{folder}", "song")
assert(session, "no session")
assert(ARDOUR.LuaAPI.wait_for_process_callback({cycles}, 120000), "no cycle of the engine")
local export = session:simple_export()
assert(export:set_preset("{preset}"), "no preset")
export:set_name("{name}")
export:set_folder("{output}")
assert(export:run_export(), "no export")
close_session()
quit()
"""

PRESET_ID = "6b2f6c1e-7d3c-4a53-9a60-0c6ad4d1f7a5"
FLOAT_WAV_ID = "20b4ab09-6452-4cb3-bd66-b921cdbd2942"
"""Ardour's own format "BWAV 32float Export"."""
PRESET = f"""<?xml version="1.0" encoding="UTF-8"?>
<ExportPreset id="{PRESET_ID}" name="32-bit float">
  <ExportFormat id="{FLOAT_WAV_ID}"/>
  <ExportFilename>
    <Folder relative="0" path="/"/>
    <Field name="timespan" enabled="1"/>
    <Field name="time" enabled="0" value="T_None"/>
    <Field name="date" enabled="0" value="D_None"/>
  </ExportFilename>
</ExportPreset>
"""


def missing() -> str | None:
    """Returns why Ardour cannot be used here; None if it can."""
    if SCANNER.is_file() and shutil.which(LUA):
        return None
    return "Ardour 7 is not installed: apt-get install ardour"


@dataclass(frozen=True)
class Ardour:
    """Ardour with a home folder of its own, in which the plugin is installed as ``~/.vst3``."""

    home: Path
    block: int = 1024

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its processes."""
        home = str(self.home)
        folders = {"XDG_CACHE_HOME": f"{home}/.cache", "XDG_CONFIG_HOME": f"{home}/.config"}
        return os.environ | folders | {"HOME": home}

    def scan(self, bundle: Path) -> str:
        """Scans a plugin; returns what Ardour has found."""
        libraries = {"LD_LIBRARY_PATH": str(SCANNER.parent)}
        subprocess.run(
            [SCANNER, "-f", bundle], env=self.environment | libraries, check=True, timeout=60
        )
        (found,) = (self.home / ".cache").rglob("*.v3i")
        return found.read_text()

    def create(self, folder: Path, songs: Sequence[Audio]) -> Path:
        """Creates a session that plays each song on a track, the first through the plugin."""
        code = CREATE.format(
            block=self.block, folder=folder, rate=RATE, tracks=len(songs), plugin=PLUGIN_ID
        )
        self._lua(folder, code)
        _add_songs(folder, songs)
        return folder

    def change(self, folder: Path, code: str) -> list[str]:
        """Opens a session, runs Lua code, saves and closes it; returns the printed lines.

        The code finds ``session``, ``track``, ``plugin`` and ``insert``.
        """
        text = CHANGE.format(block=self.block, folder=folder, code=code)
        return self._lua(folder, text).splitlines()

    def start_export(self, folder: Path, output: Path) -> subprocess.Popen[str]:
        """Starts the export of a session to a WAV file."""
        presets = self.home / ".config" / "ardour7" / "export"
        presets.mkdir(parents=True, exist_ok=True)
        (presets / "float.preset").write_text(PRESET)
        code = EXPORT.format(
            block=self.block,
            folder=folder,
            cycles=CYCLES,
            preset=PRESET_ID,
            name=output.stem,
            output=output.parent,
        )
        return self._start(folder, code)

    def export(self, folder: Path, output: Path, timeout_seconds: float = TIMEOUT_SECONDS) -> Audio:
        """Exports a session; returns the audio, (channels, samples)."""
        finish(self.start_export(folder, output), timeout_seconds)
        return read(output)

    def _lua(self, folder: Path, code: str) -> str:
        return finish(self._start(folder, code))

    def _start(self, folder: Path, code: str) -> subprocess.Popen[str]:
        script = folder.with_suffix(".lua")
        script.write_text(code)
        return subprocess.Popen(
            [LUA, script],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def finish(process: subprocess.Popen[str], timeout_seconds: float = TIMEOUT_SECONDS) -> str:
    """Waits for the end of a script; returns what it printed."""
    try:
        text, _ = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
        raise AssertionError(f"no end after {timeout_seconds:g} s: {text}") from None
    assert process.returncode == 0, text
    assert "Error:" not in text, text
    return text


def read(path: Path) -> Audio:
    """Returns the audio of a file, (channels, samples)."""
    audio, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return np.ascontiguousarray(audio.T)


def duplicate_plugin(folder: Path) -> None:
    """Inserts a copy of the first track's plugin, with its settings, into the second track."""
    path = folder / "song.ardour"
    tree = ElementTree.parse(path)
    root = tree.getroot()
    first, second = (root.find(f"Routes/Route[@name='Track {n}']") for n in (1, 2))
    assert first is not None
    assert second is not None
    plugin = copy.deepcopy(first.find("Processor[@type='vst3']"))
    fader = second.find("Processor[@type='amp']")
    assert plugin is not None
    assert fader is not None
    number = int(root.get("id-counter", "0"))
    for element in plugin.iter():
        if element.get("id", "").isdigit() and element.tag != "Port":
            number += 1
            element.set("id", str(number))
    second.insert(list(second).index(fader), plugin)
    root.set("id-counter", str(number + 1))
    tree.write(path, encoding="UTF-8", xml_declaration=True)


def _add_songs(folder: Path, songs: Sequence[Audio]) -> None:
    path = folder / "song.ardour"
    tree = ElementTree.parse(path)
    root = tree.getroot()
    files = folder / "interchange" / folder.name / "audiofiles"
    sources, playlists = root.find("Sources"), root.findall("Playlists/Playlist")
    locations = root.find("Locations")
    assert sources is not None
    assert locations is not None
    end = max(song.shape[1] for song in songs) * TICKS
    number = 100_000
    for track, (song, playlist) in enumerate(zip(songs, playlists, strict=True), 1):
        name = f"song{track}.wav"
        soundfile.write(files / name, song.T, RATE, subtype="FLOAT")
        region = {"name": name, "type": "audio", "start": "a0", "position": "a0"}
        region |= {"length": f"a{song.shape[1] * TICKS}@a0", "channels": str(len(song))}
        region |= {"opaque": "1", "fade-in-active": "0", "fade-out-active": "0", "flags": ""}
        for channel in range(len(song)):
            number += 1
            source = {"name": name, "type": "audio", "flags": "", "id": str(number)}
            ElementTree.SubElement(sources, "Source", source | {"channel": str(channel)})
            region |= {f"source-{channel}": str(number), f"master-source-{channel}": str(number)}
        number += 1
        ElementTree.SubElement(playlist, "Region", region | {"id": str(number)})
    location = {"name": "session", "start": "a0", "end": f"a{end}", "flags": "IsSessionRange"}
    ElementTree.SubElement(locations, "Location", location | {"id": str(number + 1)})
    root.set("id-counter", str(number + 2))
    tree.write(path, encoding="UTF-8", xml_declaration=True)
