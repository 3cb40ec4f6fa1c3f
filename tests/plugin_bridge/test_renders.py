"""Renders contain what was separated: they wait for the model and for the server's first start.

Live playback never waits. A host's word on which of the two it does is not enough.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard.commands import install_bundle
from bsmamba2_pedalboard.offered_models import OfferedModels
from support import stub_server
from support import vst3_host as host
from support.engines import half
from support.serving import is_dry, is_wet, play, render, rendered, server_process, serving
from support.vst3_abi import OFFLINE, REALTIME, STEM, UNPROCESSED, WAIT, WAITING


def slow_half(chunk: Audio) -> Audio:
    """Is slower than any host, but keeps up with playback."""
    time.sleep(0.3 * chunk.shape[1] / 44100)
    return half(chunk)


def close(output: Audio, expected: Audio) -> None:
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


# Waiting


@pytest.mark.parametrize(
    ("setup_mode", "block_mode"),
    [(OFFLINE, OFFLINE), (OFFLINE, REALTIME), (REALTIME, OFFLINE), (REALTIME, REALTIME)],
    ids=["says so", "says so once", "says so for each block", "does not say so"],
)
def test_a_render_waits_by_default_whatever_the_host_says(
    plugin: host.Plugin, noise: Callable[..., Audio], setup_mode: int, block_mode: int
) -> None:
    audio, block = noise(2, 44100), 8000
    with serving(slow_half, headroom_ms=2000, chunk=4410):  # a latency as long as a real one
        latency = plugin.start(mode=setup_mode, max_samples=block)
        close(render(plugin, audio, latency, block, block_mode), 0.5 * audio)
    assert plugin.missed == 0


@pytest.mark.parametrize("block", [30000, 100_000])
def test_a_block_longer_than_any_live_one_waits(
    plugin: host.Plugin, noise: Callable[..., Audio], block: int
) -> None:
    audio = noise(2, 60000)
    with serving(half, chunk=4410):
        latency = plugin.start(max_samples=block)
        close(render(plugin, audio, latency, block), 0.5 * audio)


def test_a_render_has_the_stems_of_what_was_played_before_the_server_answered(
    plugin: host.Plugin, noise: Callable[..., Audio]
) -> None:
    audio, played = noise(2, 22050), 14 * 441
    with serving(half, chunk=4410):
        plugin.start()  # the latency is known from now on
    latency = plugin.start()
    for start in range(0, played, 441):
        assert not plugin.process(audio[:, start : start + 441]).any()
        time.sleep(0.01)
    with serving(half, chunk=4410):
        time.sleep(1)  # the plugin connects, and takes it for playback
        rest = render(plugin, audio[:, played:], latency - played, mode=OFFLINE)
    close(rest, 0.5 * audio[:, :-played])
    assert plugin.missed == 0


def test_a_render_does_not_wait_if_the_user_has_switched_it_off(plugin: host.Plugin) -> None:
    plugin.set(WAIT, 0)
    plugin.set(WAITING, UNPROCESSED)
    with Hanging() as hang:
        latency = plugin.start(mode=OFFLINE)
        output = render(plugin, np.ones((2, 9000)), latency)
        assert not hang.is_set()
    assert output[0, -1] == 1
    assert plugin.missed > 0


def test_live_playback_never_waits(plugin: host.Plugin) -> None:
    plugin.set(WAITING, UNPROCESSED)
    with Hanging() as hang:
        plugin.start()
        assert not play(plugin, lambda sample: not (is_dry(sample) or sample == 0), seconds=1.5)
        assert not hang.is_set()
    assert plugin.missed > 0


def test_live_playback_in_bursts_does_not_wait(plugin: host.Plugin) -> None:
    with Hanging() as hang:
        plugin.start()
        for _ in range(10):
            for _ in range(8):
                plugin.process(np.ones((2, 512)))
            time.sleep(8 * 512 / 44100)
        assert not hang.is_set()


def test_playback_after_a_render_does_not_wait(plugin: host.Plugin) -> None:
    plugin.set(WAITING, UNPROCESSED)
    with serving():
        latency = plugin.start()
        assert render(plugin, np.ones((2, 9000)), latency, mode=OFFLINE)[0, -1] == 0.5
    with Hanging() as hang:
        assert play(plugin, is_dry)
        assert not hang.is_set()


class Hanging:
    """A server whose model hangs until the block ends, or for 30 s."""

    def __enter__(self) -> threading.Event:
        self._ended, release = threading.Event(), threading.Event()
        self._release = release

        def hang(chunk: Audio) -> Audio:
            if not release.wait(30):
                self._ended.set()
            return half(chunk)

        self._server = serving(hang)
        self._server.__enter__()
        return self._ended

    def __exit__(self, *error: object) -> None:
        self._release.set()
        self._server.__exit__(None, None, None)


# The server's start


@pytest.fixture
def installed(folder: Path, tmp_path: Path) -> Iterator[Callable[..., host.Plugin]]:
    """Installs the plugin with a command that starts a stub server; stops the server afterwards."""
    plugins = []

    def install(start_seconds: float = 1.0, seconds_per_chunk: float = 0.0) -> host.Plugin:
        command = stub_server.command(start_seconds, seconds_per_chunk)
        offers = OfferedModels(stub_server.separator(), headroom_ms=50).to_text()
        plugins.append(host.Plugin(install_bundle(command, offers, tmp_path / "plugins")))
        return plugins[-1]

    yield install
    for plugin in plugins:
        plugin.close()
    stub_server.stop(folder)


def test_a_render_waits_for_the_first_start_of_the_server(
    installed: Callable[..., host.Plugin], noise: Callable[..., Audio]
) -> None:
    plugin, audio = installed(), noise(2, 44100)
    latency = plugin.start(mode=OFFLINE)
    assert latency > 0
    close(render(plugin, audio, latency), stub_server.GAIN * audio)
    assert plugin.missed == 0


def test_a_server_that_is_killed_in_a_render_is_started_again(
    installed: Callable[..., host.Plugin], noise: Callable[..., Audio], folder: Path
) -> None:
    plugin, audio = installed(), noise(2, 88200)
    latency = plugin.start(mode=OFFLINE)
    first = plugin.process(audio[:, :512])
    stub_server.kill_when_serving(folder)
    rest = render(plugin, audio[:, 512:], latency)
    assert not first.any()  # the latency is longer than a block
    close(rest, stub_server.GAIN * audio[:, 512:])


def test_a_command_that_fails_does_not_hold_a_render(
    folder: Path, tmp_path: Path, noise: Callable[..., Audio]
) -> None:
    offers = OfferedModels(stub_server.separator(), headroom_ms=50).to_text()
    plugin = host.Plugin(install_bundle(["/bin/false"], offers, tmp_path / "plugins"))
    latency = plugin.start(mode=OFFLINE)
    output = render(plugin, noise(2, 9000), latency)
    assert not output.any()  # silence, not the unseparated song
    assert plugin.missed > 0
    plugin.close()


# Missed blocks


def test_a_server_that_is_killed_in_a_render_is_reported_and_the_next_render_is_right(
    plugin: host.Plugin, noise: Callable[..., Audio], capfd: pytest.CaptureFixture[str]
) -> None:
    audio = noise(2, 44100)
    with server_process() as server:
        latency = plugin.start(mode=OFFLINE)
        first = plugin.process(np.zeros((2, 512)))
        server.kill()
        server.wait()
        output = render(plugin, audio, latency)
    assert not first.any()
    assert not output[:, -9000:].any()
    assert plugin.missed > 0
    assert "could not be separated" in capfd.readouterr().err
    with server_process():
        close(rendered(plugin, audio), 0.5 * audio)
    assert plugin.missed == 0


def test_the_count_is_that_of_the_last_render(plugin: host.Plugin) -> None:
    with serving():
        latency = plugin.start()
    assert play(plugin, lambda _: plugin.missed > 3)
    with serving():
        assert play(plugin, is_wet)
        render(plugin, np.ones((2, 9000)), latency, mode=OFFLINE)
    assert plugin.missed == 0


def test_a_model_that_the_server_does_not_have_does_not_hold_a_render(
    plugin: host.Plugin, noise: Callable[..., Audio], folder: Path
) -> None:
    with serving():
        text = (folder / "models").read_text()
        (folder / "models").write_text(text.replace("stub", "nothing"))
        output = rendered(plugin, noise(2, 9000))
    assert not output.any()
    assert plugin.missed > 0


# The chosen stem


def test_the_last_stem_of_the_list_is_the_mixture(
    plugin: host.Plugin, noise: Callable[..., Audio]
) -> None:
    audio = noise(2, 9000)
    with serving():
        plugin.start()
        assert play(plugin, lambda _: len(plugin.texts(STEM)) == 3)
        plugin.choose(STEM, "mixture")
        close(rendered(plugin, audio), audio)


@pytest.mark.parametrize(("name", "of_output"), [("Reaper", False), ("Ardour", True)])
def test_the_stem_switches_at_the_sample_of_the_automation(
    folder: Path, noise: Callable[..., Audio], name: str, of_output: bool
) -> None:
    """Ardour aligns automation with the plugin's output, other hosts with its input."""
    audio, switch, fade = noise(2, 9000), 6000, 256
    plugin = host.Plugin(host.bundle(), name=name)
    with serving(lambda chunk: np.float32(0.25) * chunk[np.newaxis]):
        plugin.start()
        assert play(plugin, lambda _: len(plugin.texts(STEM)) == 3)
        latency = plugin.start(mode=OFFLINE, max_samples=1 << 17)
        offset = switch + latency if of_output else switch
        changes = host.Changes({STEM: {0: 0.0, offset: 0.5}})
        output = plugin.process(np.pad(audio, ((0, 0), (0, latency))), changes=changes)[:, latency:]
    plugin.close()
    close(output[:, : switch + 1], 0.25 * audio[:, : switch + 1])
    close(output[:, switch + fade :], 0.75 * audio[:, switch + fade :])
    steps = np.abs(output / audio)
    assert (steps >= 0.25 - 1e-4).all()
    assert (steps <= 0.75 + 1e-4).all()
