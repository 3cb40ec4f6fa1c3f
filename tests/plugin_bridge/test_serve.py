"""The plugin in a DAW, and the server that has the model: what happens when either misbehaves.

The DAW is the small host of ``support.vst3_host``; it plays as fast as it can, so what is to be wet
is played with the plugin told to wait.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bsmamba2 import Separator
from support import vst3_host as host
from support.engines import StubEngine, half, restless
from support.serving import is_dry, is_wet, play, serving

GAIN, MIX, STEM, WAIT = range(4)
TESTS = str(Path(__file__).parents[1])


def rendered(plugin, audio, rate=44100, block=512):
    """As a host renders: aligned, and to the end."""
    plugin.set(WAIT, 1)
    latency = plugin.start(rate, block, host.OFFLINE)
    audio = np.pad(audio, ((0, 0), (0, latency)))
    parts = [plugin.process(audio[:, a : a + block]) for a in range(0, audio.shape[1], block)]
    return np.concatenate(parts, axis=1)[:, latency:]


def close(output, expected):
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


# What it makes


@pytest.mark.parametrize("rate", [22050, 44100, 48000, 96000])
def test_a_render_is_the_separator_s_stream(plugin, noise, rate):
    audio = noise(2, 20000)
    with serving(restless):
        output = rendered(plugin, audio, rate)
    stream = Separator(StubEngine(restless)).stream(rate)
    close(output, stream.push(np.pad(audio, ((0, 0), (0, 20000))))["vocals"][:, :20000])


@pytest.mark.parametrize("block", [1, 64, 1000, 20000])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_host_s_block_makes_no_difference(plugin, noise, block, channels):
    plugin.arrange(channels)
    with serving(restless):
        output = rendered(plugin, noise(channels, 3000), block=block)
        close(output, rendered(plugin, noise(channels, 3000), block=700))


def test_stem_gain_and_mix_are_the_host_s(plugin, noise):
    plugin.set(STEM, 1 / 16)  # the second
    plugin.set(GAIN, 1)  # 20 dB
    plugin.set(MIX, 0.5)
    with serving(lambda chunk: 0.25 * chunk[np.newaxis]):
        output = rendered(plugin, noise(2, 9000))
    # The gain comes in over the first block, before anything is heard.
    close(output, (0.5 + 0.5 * 10 * 0.75) * noise(2, 9000))


def test_two_instances_share_the_server(plugin, noise):
    other = host.Plugin(host.bundle())
    with serving(restless):
        first, second = rendered(plugin, noise(2, 5000)), rendered(other, noise(2, 5000))
    np.testing.assert_array_equal(first, second)
    other.close()


def test_what_is_played_becomes_wet_once_its_time_has_come(plugin):
    with serving():
        plugin.start()
        assert play(plugin, is_wet)


# When there is no answer


def test_without_a_server_it_is_dry_and_late_as_the_last_one_was(plugin, noise):
    with serving(headroom_ms=200) as server:
        pass
    audio = noise(2, 30000)
    latency = plugin.start()
    assert latency == -(-server.latency_ms * 44100 // 1000)
    output = plugin.process(audio)
    np.testing.assert_array_equal(output[:, latency:], audio[:, : 30000 - latency])


def test_a_host_is_told_when_a_server_comes_with_another_latency(plugin):
    assert plugin.start() == 0
    with serving() as server:
        assert play(plugin, lambda _: plugin.handler.restarts)
        assert plugin.handler.restarts == [1 << 3]
        assert plugin.start() == -(-server.latency_ms * 44100 // 1000)


def test_a_host_that_is_not_told_anew_hears_the_input_alone(plugin):
    assert plugin.start() == 0
    with serving():
        assert play(plugin, lambda _: plugin.handler.restarts)
        assert not play(plugin, lambda sample: not is_dry(sample), seconds=0.3)


def test_a_server_that_hangs_stops_no_audio_thread(plugin):
    release = threading.Event()

    def hang(chunk):
        release.wait(30)
        return half(chunk)

    with serving(hang):
        plugin.start()
        blocks = [plugin.process(np.ones((2, 4410)))[0, -1] for _ in range(100)]
        assert blocks[-1] == 1
        release.set()


def test_a_render_does_not_wait_where_nobody_will_answer(plugin, folder):
    (folder / "latency_ms").write_text("5")
    plugin.set(WAIT, 1)
    plugin.start(mode=host.OFFLINE)
    assert all(plugin.process(np.ones((2, 512)))[0, -1] == 1 for _ in range(50))


SERVER = """
import sys
sys.path.insert(0, {tests!r})
from bsmamba2 import Separator
from bsmamba2_pedalboard.server import Server
from support.engines import StubEngine, half
server = Server(Separator(StubEngine(half)), headroom_ms=50)
print("up", flush=True)
server.run()
"""


@contextmanager
def another_process():
    code = SERVER.format(tests=TESTS)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_server_killed_in_the_middle_leaves_it_dry_and_the_next_one_is_found(plugin):
    with another_process() as server:
        plugin.start()
        assert play(plugin, is_wet)
        server.send_signal(signal.SIGKILL)
        assert play(plugin, is_dry)
    with another_process():
        assert play(plugin, is_wet)


def test_the_stem_goes_and_comes_without_a_step(plugin):
    heard = []
    with another_process() as server:
        plugin.start()
        for wanted in (is_wet, is_dry):
            while not heard or not wanted(heard[-1][-1]):
                heard.append(plugin.process(np.ones((2, 441)))[0])
                time.sleep(0.005)
            server.kill()
    steps = np.abs(np.diff(np.concatenate(heard)))
    started = np.argmax(np.concatenate(heard) > 0)  # the signal itself begins with a step
    assert steps[started + 1 :].max() < 0.01


def test_a_stopped_server_leaves_the_latency_and_nothing_to_enter_by(folder):
    with serving():
        assert {path.name for path in folder.iterdir()} == {"socket", "token", "latency_ms", "lock"}
    assert {path.name for path in folder.iterdir()} == {"latency_ms", "lock"}
