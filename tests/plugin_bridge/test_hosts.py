"""The same binary in hosts of others: DawDreamer, minihost, and Ardour's scanner.

``pip install "bsmamba2[hosts]"``, and Debian's ``ardour``; what is not installed is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from bsmamba2 import Separator
from bsmamba2_pedalboard import plugin_path
from bsmamba2_pedalboard.server import Server
from support.engines import StubEngine, half

WAIT = 3
SCANNERS = ("/usr/lib/ardour7/ardour-vst3-scanner", "/usr/lib/ardour8/ardour-vst3-scanner")


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server that halves."""
    folder = tmp_path / "s"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("BSMAMBA2_SERVE_DIR", str(folder))
    server = Server(Separator(StubEngine(half, chunk=4410)), headroom_ms=50)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server
    server.stop()
    thread.join()


def with_silence(audio, latency):
    return np.pad(audio, ((0, 0), (0, latency + 512)))


def halves(output, audio, latency):
    aligned = output[:, latency : latency + audio.shape[1]]
    np.testing.assert_allclose(aligned, 0.5 * audio, rtol=0, atol=1e-6)


def test_dawdreamer_renders_with_it(served, noise):
    dawdreamer = pytest.importorskip("dawdreamer")
    engine = dawdreamer.RenderEngine(44100, 512)
    plugin = engine.make_plugin_processor("separate", str(plugin_path()))
    plugin.set_parameter(WAIT, 1.0)
    latency = plugin.get_latency_samples()
    audio = noise(2, 20000)
    whole = with_silence(audio, latency)
    song = engine.make_playback_processor("song", whole)
    engine.load_graph([(song, []), (plugin, ["song"])])
    engine.render(whole.shape[1] / 44100)
    halves(engine.get_audio(), audio, latency)


def test_minihost_renders_with_it_and_keeps_its_state(served, noise):
    minihost = pytest.importorskip("minihost")
    plugin = minihost.Plugin(str(plugin_path()), 44100, 512, 2, 2)
    plugin.non_realtime = True
    plugin.set_param(WAIT, 1.0)
    audio, outputs = noise(2, 20000), []
    whole = with_silence(audio, plugin.latency_samples)
    for start in range(0, whole.shape[1] - 511, 512):
        outputs.append(np.empty((2, 512), np.float32))
        plugin.process(np.ascontiguousarray(whole[:, start : start + 512]), outputs[-1])
    halves(np.concatenate(outputs, axis=1), audio, plugin.latency_samples)
    state = plugin.get_state()
    plugin.set_param(WAIT, 0.0)
    plugin.set_state(state)
    assert plugin.get_param(WAIT) == 1
    plugin.close()


def test_ardour_s_scanner_accepts_it(tmp_path):
    scanner = next((path for path in SCANNERS if shutil.which(path)), None)
    if scanner is None:
        pytest.skip("Ardour's VST3 scanner is not installed: apt-get install ardour")
    environment = os.environ | {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "LD_LIBRARY_PATH": str(Path(scanner).parent),
    }
    subprocess.run([scanner, "-f", str(plugin_path())], env=environment, check=True, timeout=60)
    (found,) = tmp_path.rglob("*.v3i")
    told = found.read_text()
    assert 'name="bsmamba2 Separate"' in told
    assert 'n_inputs="2" n_outputs="2"' in told
