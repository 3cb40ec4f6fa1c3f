"""The plugin in a DAW and its server, and what happens when either fails.

The DAW is the small host in ``support.vst3_host``. ``test_renders`` has the renders that wait.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from support import vst3_abi as abi
from support import vst3_host as host
from support.engines import StubEngine, restless
from support.serving import is_dry, is_wet, play, rendered, server_process, serving
from support.vst3_abi import GAIN, MIX, STEM, UNPROCESSED, WAITING


def close(output: Audio, expected: npt.NDArray[Any]) -> None:
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


# Output


@pytest.mark.parametrize("rate", [22050, 44100, 48000, 96000])
def test_rendered_output_equals_the_separators_stream(
    plugin: host.Plugin, noise: Callable[..., Audio], rate: float
) -> None:
    audio = noise(2, 20000)
    with serving(restless):
        output = rendered(plugin, audio, rate)
    stream = Separator(StubEngine(restless)).stream(rate)
    close(output, stream.push(np.pad(audio, ((0, 0), (0, 20000))))["vocals"][:, :20000])


@pytest.mark.parametrize("block", [1, 64, 1000, 20000])
@pytest.mark.parametrize("channels", [1, 2])
def test_output_does_not_depend_on_the_hosts_block_size(
    plugin: host.Plugin, noise: Callable[..., Audio], block: int, channels: int
) -> None:
    plugin.arrange(channels)
    with serving(restless):
        output = rendered(plugin, noise(channels, 3000), block=block)
        close(output, rendered(plugin, noise(channels, 3000), block=700))


def test_stem_gain_and_mix_follow_the_hosts_parameters(
    plugin: host.Plugin, noise: Callable[..., Audio]
) -> None:
    plugin.set(GAIN, 1)  # 20 dB
    plugin.set(MIX, 0.5)
    with serving(lambda chunk: 0.25 * chunk[np.newaxis]):
        plugin.start()  # the plugin gets the list of stems
        assert play(plugin, lambda _: plugin.texts(STEM) == ["vocals", "instrumental", "mixture"])
        plugin.choose(STEM, "instrumental")
        output = rendered(plugin, noise(2, 9000))
    close(output, (0.5 + 0.5 * 10 * 0.75) * noise(2, 9000))


def test_two_instances_share_the_server(plugin: host.Plugin, noise: Callable[..., Audio]) -> None:
    other = host.Plugin(host.bundle())
    with serving(restless):
        first, second = rendered(plugin, noise(2, 5000)), rendered(other, noise(2, 5000))
    np.testing.assert_array_equal(first, second)
    other.close()


def test_playback_becomes_wet_when_the_stem_arrives(plugin: host.Plugin) -> None:
    with serving():
        plugin.start()
        assert play(plugin, is_wet)


# Without a response


def test_without_a_server_output_is_dry_with_the_last_servers_latency(
    plugin: host.Plugin, noise: Callable[..., Audio]
) -> None:
    with serving(headroom_ms=200) as server:
        pass
    audio = noise(2, 30000)
    latency = plugin.start()
    assert latency == -(-server.latency_ms * 44100 // 1000)
    plugin.set(WAITING, UNPROCESSED)
    output = plugin.process(audio)
    np.testing.assert_array_equal(output[:, latency:], audio[:, : 30000 - latency])


def test_host_is_notified_when_a_server_has_another_latency(plugin: host.Plugin) -> None:
    assert plugin.start() == 0
    with serving() as server:
        assert play(plugin, lambda _: sum(plugin.handler.restarts) & 1 << 3)
        assert plugin.start() == -(-server.latency_ms * 44100 // 1000)


def test_host_that_does_not_restart_the_plugin_gets_the_input(plugin: host.Plugin) -> None:
    assert plugin.start() == 0
    with serving():
        assert play(plugin, lambda _: plugin.handler.restarts)
        assert not play(plugin, lambda sample: not is_dry(sample), seconds=0.3)
        assert plugin.missed > 0


class WaitingHandler(host.Handler):
    """A host whose notices return only when its main thread has worked through its queue."""

    def __init__(self) -> None:
        self.entered, self.released = threading.Event(), threading.Event()
        super().__init__()

    def _restart(self, _: Any, flags: int) -> int:
        self.entered.set()
        self.released.wait(30)
        return abi.OK


@pytest.mark.parametrize("action", ["stop", "close"])
def test_a_notice_that_waits_for_the_main_thread_does_not_hold_it(
    folder: Path, action: str
) -> None:
    plugin, handler = host.Plugin(host.bundle()), WaitingHandler()
    plugin.handler = handler
    plugin.controller.call("set_handler", handler.pointer)
    assert plugin.start() == 0
    with serving():
        assert handler.entered.wait(20)
        main = threading.Thread(target=getattr(plugin, action))
        main.start()
        main.join(10)
        has_returned = not main.is_alive()
        handler.released.set()
        main.join()
    assert has_returned
    if action == "stop":
        plugin.close()


def test_killed_server_leaves_output_dry_until_the_next_server(plugin: host.Plugin) -> None:
    with server_process() as server:
        plugin.start()
        assert play(plugin, is_wet)
        server.send_signal(signal.SIGKILL)
        assert play(plugin, is_dry)
    with server_process():
        assert play(plugin, is_wet)


def test_stem_fades_in_and_out_without_a_step(plugin: host.Plugin) -> None:
    played: list[Audio] = []
    with server_process() as server:
        plugin.start()
        assert play(plugin, is_wet, heard=played)
        server.kill()
        assert play(plugin, is_dry, heard=played)
    steps = np.abs(np.diff(np.concatenate(played)))
    started = np.argmax(np.concatenate(played) > 0)  # the signal itself begins with a step
    assert steps[started + 1 :].max() < 0.01


def test_stopped_server_leaves_only_the_latency_and_the_lock(folder: Path) -> None:
    with serving():
        assert {path.name for path in folder.iterdir()} == {"socket", "token", "models", "lock"}
    assert {path.name for path in folder.iterdir()} == {"models", "lock"}
