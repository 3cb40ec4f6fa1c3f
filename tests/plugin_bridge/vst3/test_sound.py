"""Sound of the VST3 at any block size and after restarts, and without a server.

Without a server it passes its input through, delayed by the latency that it reports.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_uint8, c_void_p
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsmamba2.audio.array import Audio
from support import vst3_abi as abi
from support import vst3_host as host
from support.vst3_abi import INVALID, MISSED, MIX, OFFLINE, OK, WAITING
from support.vst3_offers import LATENCY_MS, STEM_BUSES, delayed


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(
    st.lists(st.sampled_from([0, 1, 31, 512, 4096, 9000]), min_size=1, max_size=9), st.booleans()
)
def test_input_is_delayed_by_the_reported_latency_for_any_block_sizes(
    plugin: host.Plugin, noise: Callable[..., Audio], sizes: list[int], in_place: bool
) -> None:
    latency = plugin.start(max_samples=9000)
    audio = noise(2, sum(sizes))
    cuts = np.cumsum([0, *sizes])
    blocks = [audio[:, a:b] for a, b in pairwise(cuts)]
    output = np.concatenate([plugin.process(block, in_place) for block in blocks], axis=1)
    np.testing.assert_array_equal(output, delayed(audio, latency))


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 192000])
def test_the_latency_follows_the_rate(plugin: host.Plugin, rate: float) -> None:
    assert plugin.start(rate) == rate * LATENCY_MS // 1000


@pytest.mark.parametrize("channels", [1, 2])
def test_restart_discards_earlier_input(
    plugin: host.Plugin, noise: Callable[..., Audio], channels: int
) -> None:
    plugin.arrange(channels)
    for _ in range(5):
        latency = plugin.start()
        audio = noise(channels, 6000)
        np.testing.assert_array_equal(plugin.process(audio), delayed(audio, latency))


def test_output_is_silent_without_an_input_bus(plugin: host.Plugin) -> None:
    plugin.start()
    output = np.ones((2, 64), np.float32)
    rows = (c_void_p * 2)(*(row.ctypes.data for row in output))
    bus = abi.AudioBus(2, 3, ctypes.cast(rows, c_void_p))
    data = abi.Data(0, 0, 64, 0, 1, None, abi.pointer_to(bus))
    assert plugin.processor.call("process", abi.pointer_to(data)) == OK
    assert not output.any()
    assert bus.silence == 0


def test_block_with_only_parameters_is_accepted(plugin: host.Plugin) -> None:
    plugin.start()
    changes = host.Changes({MIX: 0.25})
    data = abi.Data(changes_in=changes.pointer.value)
    assert plugin.processor.call("process", abi.pointer_to(data)) == OK
    assert plugin.get(MIX) == 0.25


def test_calls_out_of_order_are_harmless(plugin: host.Plugin) -> None:
    assert plugin.processor.call("process", c_void_p()) == INVALID
    plugin.process(np.ones((2, 64)))  # before it is started
    plugin.component.call("set_active", c_uint8(0))
    plugin.start()
    plugin.component.call("set_active", c_uint8(1))
    plugin.process(np.ones((1, 64)))  # fewer channels than arranged


@pytest.mark.parametrize(
    ("waiting", "mode", "level"),
    [
        (0.0, 0, 1),
        (0.0, OFFLINE, 1),
        (0.5, 0, 1),
        (0.5, OFFLINE, 0),
        (1.0, 0, 0),
        (1.0, OFFLINE, 0),
    ],
)
def test_what_is_heard_without_stems_follows_the_choice(
    plugin: host.Plugin, waiting: float, mode: int, level: float
) -> None:
    plugin.set(WAITING, waiting)
    latency = plugin.start(max_samples=9000)
    assert plugin.process(np.ones((2, 9000)), mode=mode)[0, latency:].max() == level


def test_every_block_without_stems_is_counted(plugin: host.Plugin) -> None:
    latency = plugin.start(max_samples=9000)
    plugin.process(np.ones((2, latency)))
    assert plugin.missed == 0  # nothing of the signal was due
    for count in range(1, 4):
        plugin.process(np.ones((2, 64)))
        assert plugin.missed == count
        assert plugin.reported.values == {MISSED: pytest.approx(count / 9999)}
    plugin.start()
    plugin.process(np.ones((2, 64)))
    assert plugin.missed == 0


def test_stem_outputs_sum_to_the_delayed_input_without_a_server(
    plugin: host.Plugin, noise: Callable[..., Audio]
) -> None:
    for index in range(1, 1 + STEM_BUSES):
        plugin.enable(index)
    latency = plugin.start(max_samples=9000)
    audio = noise(2, 9000)
    outputs = plugin.process_buses(audio, 1 + STEM_BUSES)
    np.testing.assert_array_equal(outputs[1:].sum(axis=0), delayed(audio, latency))
