"""The VST3 as any host calls it: every interface, bus, restart, block size and state.

Without a server it passes its input through, delayed by the latency that it reports.
"""

from __future__ import annotations

import ctypes
import locale
import shutil
import subprocess
from collections.abc import Callable, Iterator
from ctypes import c_char_p, c_double, c_int32, c_uint8, c_uint32, c_uint64, c_void_p
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsmamba2.audio.array import Audio
from support import vst3_host as host
from support.vst3_host import INVALID, MONO, NO, OK, STEREO

GAIN, MIX, STEM, WAIT = range(4)
LATENCY_MS = 100


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[host.Plugin]:
    """An instance with the latency of a server that has stopped."""
    monkeypatch.setenv("BSMAMBA2_SERVE_DIR", str(tmp_path))
    (tmp_path / "latency_ms").write_text(str(LATENCY_MS))
    plugin = host.Plugin(host.bundle())
    yield plugin
    plugin.close()


def delayed(audio: Audio, latency: int) -> Audio:
    return np.pad(audio, ((0, 0), (latency, 0)))[:, : audio.shape[1]]


# Interfaces


@pytest.mark.parametrize("name", ["UNKNOWN", "BASE", "COMPONENT", "PROCESSOR", "CONTROLLER"])
def test_every_interface_is_found_from_every_other(plugin: host.Plugin, name: str) -> None:
    for interface in (plugin.component, plugin.processor, plugin.controller):
        found = interface.query(getattr(host, name))
        assert found is not None
        found.call("release", returns=c_uint32)


def test_all_interfaces_have_the_same_identity(plugin: host.Plugin) -> None:
    same = {
        interface.require(host.UNKNOWN).pointer.value
        for interface in (plugin.component, plugin.processor, plugin.controller)
    }
    assert len(same) == 1
    for _ in range(3):
        plugin.component.call("release", returns=c_uint32)


def test_unknown_interface_is_not_found(plugin: host.Plugin) -> None:
    for interface in (plugin.component, plugin.processor, plugin.controller, plugin.factory):
        assert interface.query(host.STRANGE) is None


def test_factory_describes_one_audio_effect(plugin: host.Plugin) -> None:
    assert plugin.factory.call("count") == 1
    assert plugin.factory.call("class_info", c_int32(1), c_void_p()) == INVALID
    info = plugin.class_info
    assert info[20:52].rstrip(b"\0") == b"Audio Module Class"
    assert info[52:116].rstrip(b"\0") == b"bsmamba2 Separate"
    assert info[120:248].rstrip(b"\0").startswith(b"Fx")
    for identity in (host.FACTORY, host.FACTORY2, host.UNKNOWN):
        assert plugin.factory.query(identity) is not None


def test_factory_creates_no_unknown_class(plugin: host.Plugin) -> None:
    found = c_void_p(1)
    arguments = c_char_p(host.STRANGE), c_char_p(host.COMPONENT), host.pointer_to(found)
    assert plugin.factory.call("create", *arguments) != OK
    assert found.value is None


# Buses


def test_there_is_one_audio_bus_each_way_and_no_event_bus(plugin: host.Plugin) -> None:
    counts = {
        (media, direction): plugin.component.call("bus_count", c_int32(media), c_int32(direction))
        for media in (0, 1)
        for direction in (0, 1)
    }
    assert counts == {(0, 0): 1, (0, 1): 1, (1, 0): 0, (1, 1): 0}


@pytest.mark.parametrize("channels", [1, 2])
def test_buses_report_their_channels(plugin: host.Plugin, channels: int) -> None:
    plugin.arrange(channels)
    for direction in (0, 1):
        info, arrangement = host.BusInfo(), c_uint64()
        place = c_int32(0), c_int32(direction), c_int32(0)
        assert plugin.component.call("bus_info", *place, host.pointer_to(info)) == OK
        assert (info.channels, host.text(info.name)) == (channels, ["Mixture", "Stem"][direction])
        plugin.processor.call(
            "bus_arrangement", c_int32(direction), c_int32(0), host.pointer_to(arrangement)
        )
        assert arrangement.value == (MONO if channels == 1 else STEREO)


@pytest.mark.parametrize(("inputs", "outputs"), [(MONO, STEREO), (STEREO, MONO), (7, 7), (0, 0)])
def test_other_arrangements_are_refused_and_change_nothing(
    plugin: host.Plugin, inputs: int, outputs: int
) -> None:
    assert plugin.set_arrangements(c_uint64(inputs), c_uint64(outputs)) == NO
    plugin.start()
    assert plugin.process(np.ones((2, 9))).shape == (2, 9)


def test_arrangement_and_setup_cannot_change_while_active(plugin: host.Plugin) -> None:
    plugin.start()
    assert plugin.set_arrangements(c_uint64(MONO), c_uint64(MONO)) == NO
    setup = host.Setup(0, 0, 64, 48000)
    assert plugin.processor.call("setup", host.pointer_to(setup)) == NO


@pytest.mark.parametrize("place", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (0, 2, 0), (2, 0, 0)])
def test_nonexistent_buses_are_refused(plugin: host.Plugin, place: tuple[int, int, int]) -> None:
    numbers = [c_int32(number) for number in place]
    info = host.BusInfo()
    assert plugin.component.call("bus_info", *numbers, host.pointer_to(info)) == INVALID
    assert plugin.component.call("activate_bus", *numbers, c_uint8(1)) == INVALID


@pytest.mark.parametrize(
    ("rate", "size", "kind"), [(0, 512, 0), (44100, 0, 0), (44100, 512, 1), (float("nan"), 9, 0)]
)
def test_invalid_setup_is_refused(plugin: host.Plugin, rate: float, size: int, kind: int) -> None:
    setup = host.Setup(0, kind, size, rate)
    assert plugin.processor.call("setup", host.pointer_to(setup)) != OK


def test_float32_is_supported_and_float64_is_not(plugin: host.Plugin) -> None:
    assert plugin.processor.call("can_process", c_int32(0)) == OK
    assert plugin.processor.call("can_process", c_int32(1)) == NO


# Sound


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
    bus = host.AudioBus(2, 3, ctypes.cast(rows, c_void_p))
    data = host.Data(0, 0, 64, 0, 1, None, host.pointer_to(bus))
    assert plugin.processor.call("process", host.pointer_to(data)) == OK
    assert not output.any()
    assert bus.silence == 0


def test_block_with_only_parameters_is_accepted(plugin: host.Plugin) -> None:
    plugin.start()
    changes = host.Changes({MIX: 0.25})
    data = host.Data(changes_in=changes.pointer.value)
    assert plugin.processor.call("process", host.pointer_to(data)) == OK
    assert plugin.get(MIX) == 0.25


def test_calls_out_of_order_are_harmless(plugin: host.Plugin) -> None:
    assert plugin.processor.call("process", c_void_p()) == INVALID
    plugin.process(np.ones((2, 64)))  # before it is started
    plugin.component.call("set_active", c_uint8(0))
    plugin.start()
    plugin.component.call("set_active", c_uint8(1))
    plugin.process(np.ones((1, 64)))  # fewer channels than arranged


# Parameters and state


def test_parameters_have_names_units_and_steps(plugin: host.Plugin) -> None:
    described = []
    for index in range(plugin.controller.call("parameter_count")):
        info = host.ParameterInfo()
        plugin.controller.call("parameter_info", c_int32(index), host.pointer_to(info))
        assert info.id == index
        assert plugin.get(index) == info.initial
        described.append((host.text(info.title), host.text(info.units), info.steps))
    assert described == [
        ("Gain", "dB", 0),
        ("Mix", "%", 0),
        ("Stem", "", 16),
        ("Wait when rendering", "", 1),
    ]


@pytest.mark.parametrize(
    ("parameter", "value", "shown"),
    [(GAIN, 0.75, "0.0"), (GAIN, 0, "-60.0"), (MIX, 0.5, "50.0"), (STEM, 1, "17"), (WAIT, 1, "On")],
)
def test_values_convert_to_text_and_back(
    plugin: host.Plugin, parameter: int, value: float, shown: str
) -> None:
    letters = (ctypes.c_uint16 * 128)()
    number = c_uint32(parameter)
    plugin.controller.call("text_of", number, c_double(value), host.pointer_to(letters))
    assert host.text(letters) == shown
    back = c_double()
    plugin.controller.call("value_of", number, host.pointer_to(letters), host.pointer_to(back))
    assert back.value == pytest.approx(value)


@given(value=st.floats(0, 1), parameter=st.sampled_from([GAIN, MIX]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plain_and_normalised_conversions_are_inverse(
    plugin: host.Plugin, value: float, parameter: int
) -> None:
    number = c_uint32(parameter)
    plain = plugin.controller.call("plain_of", number, c_double(value), returns=c_double)
    back = plugin.controller.call("normalised_of", number, c_double(plain), returns=c_double)
    assert back == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_values_out_of_range_are_refused_and_change_nothing(
    plugin: host.Plugin, value: float
) -> None:
    before = plugin.get(MIX)
    assert plugin.set(MIX, value) == INVALID
    assert plugin.set(99, 0.5) == INVALID
    assert plugin.get(MIX) == before


def test_state_is_the_same_in_a_locale_with_decimal_commas(
    plugin: host.Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    german = tmp_path / "de_DE.UTF-8"
    if not shutil.which("localedef"):
        pytest.skip("localedef, which creates the locale, is not installed")
    created = subprocess.run(
        ["localedef", "-f", "UTF-8", "-i", "de_DE", german], capture_output=True
    )
    if created.returncode:
        pytest.skip("localedef cannot create a German locale")
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    plugin.set(MIX, 0.25)
    state = plugin.save()
    locale.setlocale(locale.LC_NUMERIC, "de_DE.UTF-8")
    try:
        assert plugin.save() == state
        assert plugin.load(state) == OK
    finally:
        locale.setlocale(locale.LC_NUMERIC, "C")


def test_state_can_be_saved_and_loaded(plugin: host.Plugin, tmp_path: Path) -> None:
    for parameter, value in {GAIN: 0.1, MIX: 1 / 3, STEM: 0.5, WAIT: 1}.items():
        plugin.set(parameter, value)
    twin = host.Plugin(host.bundle())
    assert twin.load(plugin.save()) == OK
    assert [twin.get(p) for p in range(4)] == [0.1, 1 / 3, 0.5, 1]
    twin.close()


@given(st.binary(max_size=300), st.integers(0, 300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_state_leaves_values_in_range(plugin: host.Plugin, damage: bytes, cut: int) -> None:
    plugin.load(damage)
    plugin.load(plugin.save()[:cut] + damage)
    for parameter in range(4):
        assert 0 <= plugin.get(parameter) <= 1


def test_oversized_state_is_refused(plugin: host.Plugin) -> None:
    assert plugin.load(plugin.save() + bytes(1 << 20)) != OK


def test_instances_are_counted(plugin: host.Plugin) -> None:
    count = plugin.library.bsmamba2_instances
    before = count()
    twin = host.Plugin(host.bundle())
    assert count() == before + 1
    twin.close()
    assert count() == before
