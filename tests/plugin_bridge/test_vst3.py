"""The VST3 as any host calls it: every interface, bus, restart, block size and state.

No server is there, so it passes its input, as late as it says.
"""

from __future__ import annotations

import ctypes
import locale
import shutil
import subprocess
from ctypes import c_char_p, c_double, c_int32, c_uint8, c_uint32, c_uint64, c_void_p
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import vst3_host as host
from support.vst3_host import INVALID, MONO, NO, OK, STEREO

GAIN, MIX, STEM, WAIT = range(4)
LATENCY_MS = 100


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An instance that a server told of its latency, and then ended."""
    monkeypatch.setenv("BSMAMBA2_SERVE_DIR", str(tmp_path))
    (tmp_path / "latency_ms").write_text(str(LATENCY_MS))
    plugin = host.Plugin(host.bundle())
    yield plugin
    plugin.close()


def late(audio, latency):
    return np.pad(audio, ((0, 0), (latency, 0)))[:, : audio.shape[1]]


# Interfaces


@pytest.mark.parametrize("name", ["UNKNOWN", "BASE", "COMPONENT", "PROCESSOR", "CONTROLLER"])
def test_every_interface_is_found_from_every_other(plugin, name):
    for interface in (plugin.component, plugin.processor, plugin.controller):
        found = interface.query(getattr(host, name))
        assert found is not None
        found.call("release", returns=c_uint32)


def test_one_object_has_one_identity(plugin):
    same = {
        interface.query(host.UNKNOWN).pointer.value
        for interface in (plugin.component, plugin.processor, plugin.controller)
    }
    assert len(same) == 1
    for _ in range(3):
        plugin.component.call("release", returns=c_uint32)


def test_what_is_unknown_is_not_found(plugin):
    for interface in (plugin.component, plugin.processor, plugin.controller, plugin.factory):
        assert interface.query(host.STRANGE) is None


def test_the_factory_tells_of_one_audio_effect(plugin):
    assert plugin.factory.call("count") == 1
    assert plugin.factory.call("class_info", c_int32(1), c_void_p()) == INVALID
    info = plugin.class_info
    assert info[20:52].rstrip(b"\0") == b"Audio Module Class"
    assert info[52:116].rstrip(b"\0") == b"bsmamba2 Separate"
    assert info[120:248].rstrip(b"\0").startswith(b"Fx")
    for identity in (host.FACTORY, host.FACTORY2, host.UNKNOWN):
        assert plugin.factory.query(identity) is not None


def test_the_factory_makes_nothing_else(plugin):
    found = c_void_p(1)
    arguments = c_char_p(host.STRANGE), c_char_p(host.COMPONENT), host.pointer_to(found)
    assert plugin.factory.call("create", *arguments) != OK
    assert found.value is None


# Buses


def test_there_is_one_bus_of_audio_each_way_and_none_of_events(plugin):
    counts = {
        (media, direction): plugin.component.call("bus_count", c_int32(media), c_int32(direction))
        for media in (0, 1)
        for direction in (0, 1)
    }
    assert counts == {(0, 0): 1, (0, 1): 1, (1, 0): 0, (1, 1): 0}


@pytest.mark.parametrize("channels", [1, 2])
def test_buses_tell_their_channels(plugin, channels):
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


@pytest.mark.parametrize(("before", "behind"), [(MONO, STEREO), (STEREO, MONO), (7, 7), (0, 0)])
def test_other_arrangements_are_refused_and_change_nothing(plugin, before, behind):
    assert plugin.set_arrangements(c_uint64(before), c_uint64(behind)) == NO
    plugin.start()
    assert plugin.process(np.ones((2, 9))).shape == (2, 9)


def test_nothing_is_rearranged_while_it_runs(plugin):
    plugin.start()
    assert plugin.set_arrangements(c_uint64(MONO), c_uint64(MONO)) == NO
    setup = host.Setup(0, 0, 64, 48000)
    assert plugin.processor.call("setup", host.pointer_to(setup)) == NO


@pytest.mark.parametrize("place", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (0, 2, 0), (2, 0, 0)])
def test_buses_that_are_not_there_are_refused(plugin, place):
    numbers = [c_int32(number) for number in place]
    info = host.BusInfo()
    assert plugin.component.call("bus_info", *numbers, host.pointer_to(info)) == INVALID
    assert plugin.component.call("activate_bus", *numbers, c_uint8(1)) == INVALID


@pytest.mark.parametrize(
    ("rate", "size", "kind"), [(0, 512, 0), (44100, 0, 0), (44100, 512, 1), (float("nan"), 9, 0)]
)
def test_a_setup_that_makes_no_sense_is_refused(plugin, rate, size, kind):
    setup = host.Setup(0, kind, size, rate)
    assert plugin.processor.call("setup", host.pointer_to(setup)) != OK


def test_it_takes_32_bits_and_not_64(plugin):
    assert plugin.processor.call("can_process", c_int32(0)) == OK
    assert plugin.processor.call("can_process", c_int32(1)) == NO


# Sound


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(
    st.lists(st.sampled_from([0, 1, 31, 512, 4096, 9000]), min_size=1, max_size=9), st.booleans()
)
def test_the_input_comes_as_late_as_is_told_in_blocks_of_any_size(plugin, noise, sizes, in_place):
    latency = plugin.start(max_samples=9000)
    audio = noise(2, sum(sizes))
    cuts = np.cumsum([0, *sizes])
    blocks = [audio[:, a:b] for a, b in pairwise(cuts)]
    output = np.concatenate([plugin.process(block, in_place) for block in blocks], axis=1)
    np.testing.assert_array_equal(output, late(audio, latency))


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 192000])
def test_the_latency_follows_the_rate(plugin, rate):
    assert plugin.start(rate) == rate * LATENCY_MS // 1000


@pytest.mark.parametrize("channels", [1, 2])
def test_a_restart_forgets_what_came(plugin, noise, channels):
    plugin.arrange(channels)
    for _ in range(5):
        latency = plugin.start()
        audio = noise(channels, 6000)
        np.testing.assert_array_equal(plugin.process(audio), late(audio, latency))


def test_without_an_input_bus_there_is_silence(plugin):
    plugin.start()
    output = np.ones((2, 64), np.float32)
    rows = (c_void_p * 2)(*(row.ctypes.data for row in output))
    bus = host.AudioBus(2, 3, ctypes.cast(rows, c_void_p))
    data = host.Data(0, 0, 64, 0, 1, None, host.pointer_to(bus))
    assert plugin.processor.call("process", host.pointer_to(data)) == OK
    assert not output.any()
    assert bus.silence == 0


def test_a_block_that_only_carries_parameters_is_taken(plugin):
    plugin.start()
    changes = host.Changes({MIX: 0.25})
    data = host.Data(changes_in=changes.pointer.value)
    assert plugin.processor.call("process", host.pointer_to(data)) == OK
    assert plugin.get(MIX) == 0.25


def test_it_is_called_out_of_order_without_harm(plugin):
    assert plugin.processor.call("process", c_void_p()) == INVALID
    plugin.process(np.ones((2, 64)))  # before it was started
    plugin.component.call("set_active", c_uint8(0))
    plugin.start()
    plugin.component.call("set_active", c_uint8(1))
    plugin.process(np.ones((1, 64)))  # fewer channels than arranged


# Parameters and state


def test_parameters_are_told_with_their_names_and_units(plugin):
    told = []
    for index in range(plugin.controller.call("parameter_count")):
        info = host.ParameterInfo()
        plugin.controller.call("parameter_info", c_int32(index), host.pointer_to(info))
        assert info.id == index
        assert plugin.get(index) == info.initial
        told.append((host.text(info.title), host.text(info.units), info.steps))
    assert told == [
        ("Gain", "dB", 0),
        ("Mix", "%", 0),
        ("Stem", "", 16),
        ("Wait when rendering", "", 1),
    ]


@pytest.mark.parametrize(
    ("parameter", "value", "shown"),
    [(GAIN, 0.75, "0.0"), (GAIN, 0, "-60.0"), (MIX, 0.5, "50.0"), (STEM, 1, "17"), (WAIT, 1, "On")],
)
def test_values_are_shown_and_read_back(plugin, parameter, value, shown):
    letters = (ctypes.c_uint16 * 128)()
    number = c_uint32(parameter)
    plugin.controller.call("text_of", number, c_double(value), host.pointer_to(letters))
    assert host.text(letters) == shown
    back = c_double()
    plugin.controller.call("value_of", number, host.pointer_to(letters), host.pointer_to(back))
    assert back.value == pytest.approx(value)


@given(value=st.floats(0, 1), parameter=st.sampled_from([GAIN, MIX]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plain_and_normalised_values_are_inverse(plugin, value, parameter):
    number = c_uint32(parameter)
    plain = plugin.controller.call("plain_of", number, c_double(value), returns=c_double)
    back = plugin.controller.call("normalised_of", number, c_double(plain), returns=c_double)
    assert back == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_values_out_of_range_are_refused_and_change_nothing(plugin, value):
    before = plugin.get(MIX)
    assert plugin.set(MIX, value) == INVALID
    assert plugin.set(99, 0.5) == INVALID
    assert plugin.get(MIX) == before


def test_a_state_is_the_same_where_numbers_have_a_comma(plugin, tmp_path, monkeypatch):
    german = tmp_path / "de_DE.UTF-8"
    if not shutil.which("localedef"):
        pytest.skip("localedef makes the locale, and is not here")
    made = subprocess.run(["localedef", "-f", "UTF-8", "-i", "de_DE", german], capture_output=True)
    if made.returncode:
        pytest.skip("no German locale can be made here")
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    plugin.set(MIX, 0.25)
    state = plugin.save()
    locale.setlocale(locale.LC_NUMERIC, "de_DE.UTF-8")
    try:
        assert plugin.save() == state
        assert plugin.load(state) == OK
    finally:
        locale.setlocale(locale.LC_NUMERIC, "C")


def test_a_state_goes_round(plugin, tmp_path):
    for parameter, value in {GAIN: 0.1, MIX: 1 / 3, STEM: 0.5, WAIT: 1}.items():
        plugin.set(parameter, value)
    twin = host.Plugin(host.bundle())
    assert twin.load(plugin.save()) == OK
    assert [twin.get(p) for p in range(4)] == [0.1, 1 / 3, 0.5, 1]
    twin.close()


@given(st.binary(max_size=300), st.integers(0, 300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_state_is_refused_or_changes_values_within_their_range(plugin, noise, cut):
    plugin.load(noise)
    plugin.load(plugin.save()[:cut] + noise)
    for parameter in range(4):
        assert 0 <= plugin.get(parameter) <= 1


def test_a_state_without_end_is_refused(plugin):
    assert plugin.load(plugin.save() + bytes(1 << 20)) != OK


def test_instances_are_counted(plugin):
    count = plugin.library.bsmamba2_instances
    before = count()
    twin = host.Plugin(host.bundle())
    assert count() == before + 1
    twin.close()
    assert count() == before
