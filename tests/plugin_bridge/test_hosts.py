"""The same binary in other hosts: DawDreamer, minihost and Ardour's scanner.

They need ``pip install ".[hosts]"`` and Debian's ``ardour``; without a host its test is
skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard import plugin_path
from bsmamba2_pedalboard.server import Server
from support.engines import StubEngine, half

WAIT = 3
SCANNERS = ("/usr/lib/ardour7/ardour-vst3-scanner", "/usr/lib/ardour8/ardour-vst3-scanner")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server whose model halves the mixture."""
    folder = tmp_path / "s"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("BSMAMBA2_SERVE_DIR", str(folder))
    server = Server(Separator(StubEngine(half, chunk=4410)), headroom_ms=50)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server
    server.stop()
    thread.join()


def append_silence(audio: Audio, latency: int) -> Audio:
    return np.pad(audio, ((0, 0), (0, latency + 512)))


def assert_halved(output: Audio, audio: Audio, latency: int) -> None:
    aligned = output[:, latency : latency + audio.shape[1]]
    np.testing.assert_allclose(aligned, 0.5 * audio, rtol=0, atol=1e-6)


def test_dawdreamer_renders_with_the_plugin(served: Server, noise: Callable[..., Audio]) -> None:
    dawdreamer = pytest.importorskip("dawdreamer")
    engine = dawdreamer.RenderEngine(44100, 512)
    plugin = engine.make_plugin_processor("separate", str(plugin_path()))
    plugin.set_parameter(WAIT, 1.0)
    latency = plugin.get_latency_samples()
    audio = noise(2, 20000)
    whole = append_silence(audio, latency)
    song = engine.make_playback_processor("song", whole)
    engine.load_graph([(song, []), (plugin, ["song"])])
    engine.render(whole.shape[1] / 44100)
    assert_halved(engine.get_audio(), audio, latency)


def test_minihost_renders_with_the_plugin_and_restores_its_state(
    served: Server, noise: Callable[..., Audio]
) -> None:
    minihost = pytest.importorskip("minihost")
    plugin = minihost.Plugin(str(plugin_path()), 44100, 512, 2, 2)
    plugin.non_realtime = True
    plugin.set_param(WAIT, 1.0)
    audio, outputs = noise(2, 20000), []
    whole = append_silence(audio, plugin.latency_samples)
    for start in range(0, whole.shape[1] - 511, 512):
        # The main output, and one for each stem.
        outputs.append(np.empty((plugin.num_output_channels, 512), np.float32))
        plugin.process(np.ascontiguousarray(whole[:, start : start + 512]), outputs[-1])
    assert_halved(np.concatenate(outputs, axis=1)[:2], audio, plugin.latency_samples)
    state = plugin.get_state()
    plugin.set_param(WAIT, 0.0)
    plugin.set_state(state)
    assert plugin.get_param(WAIT) == 1
    plugin.close()


def test_ardours_scanner_accepts_the_plugin(tmp_path: Path) -> None:
    scanner = next((path for path in SCANNERS if shutil.which(path)), None)
    if scanner is None:
        pytest.skip("Ardour's VST3 scanner is not installed: apt-get install ardour")
    environment = os.environ | {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "LD_LIBRARY_PATH": str(Path(scanner).parent),
    }
    subprocess.run([scanner, "-f", str(plugin_path())], env=environment, check=True, timeout=60)
    (scanned,) = tmp_path.rglob("*.v3i")
    description = scanned.read_text()
    assert 'name="bsmamba2 Separate"' in description
    assert 'n_inputs="2" n_outputs="2"' in description
