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
from support.serving import play
from support.vst3_host import (
    GAIN,
    INVALID,
    LOOKAHEAD,
    MISSED,
    MIX,
    MODEL,
    MONO,
    NO,
    OFFLINE,
    OK,
    STEM,
    STEREO,
    UNPROCESSED,
    WAIT,
    WAITING,
)

LATENCY_MS = 100
STEM_BUSES = 8
CAN_AUTOMATE, IS_READ_ONLY, IS_LIST = 1, 2, 8
OFFERS = f"""bsmamba2 offers 1
setup\tanything
model\tsmall\t0\t2\tvocals\tinstrumental
lookahead\t0\t{LATENCY_MS}
lookahead\t500\t200
model\tfour stems\t0\t4\tdrums\tbass\tother\tvocals\tinstrumental
lookahead\t0\t300
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[host.Plugin]:
    """An instance with the latency of a server that has stopped."""
    monkeypatch.setenv("BSMAMBA2_SERVE_DIR", str(tmp_path))
    (tmp_path / "models").write_text(OFFERS)
    plugin = host.Plugin(host.bundle())
    plugin.set(WAITING, UNPROCESSED)
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


def test_there_are_outputs_for_the_chosen_stem_and_all_stems_and_no_event_bus(
    plugin: host.Plugin,
) -> None:
    counts = {
        (media, direction): plugin.component.call("bus_count", c_int32(media), c_int32(direction))
        for media in (0, 1)
        for direction in (0, 1)
    }
    assert counts == {(0, 0): 1, (0, 1): 1 + STEM_BUSES, (1, 0): 0, (1, 1): 0}


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


def test_only_the_main_output_is_active_at_first(plugin: host.Plugin) -> None:
    active = []
    for index in range(1 + STEM_BUSES):
        info = host.BusInfo()
        place = c_int32(0), c_int32(1), c_int32(index)
        plugin.component.call("bus_info", *place, host.pointer_to(info))
        active.append((info.type, info.flags))
    assert active == [(0, 1)] + [(1, 0)] * STEM_BUSES


def test_outputs_have_the_names_of_the_models_stems(plugin: host.Plugin) -> None:
    names = [plugin.bus_name(index) for index in range(4)]
    assert names == ["Stem", "vocals", "instrumental", "unused 3"]
    plugin.choose(MODEL, "four stems")
    assert [plugin.bus_name(index) for index in range(1, 6)] == [
        *("drums", "bass", "other", "vocals"),
        "unused 5",
    ]


def test_an_output_can_be_left_out_of_the_arrangement(plugin: host.Plugin) -> None:
    stereo, empty = c_uint64(STEREO), c_uint64(0)
    outputs = [stereo, stereo, empty, *[stereo] * (STEM_BUSES - 2)]
    assert plugin.set_arrangements(stereo, *outputs) == OK
    arrangement = c_uint64(1)
    place = c_int32(1), c_int32(2)
    plugin.processor.call("bus_arrangement", *place, host.pointer_to(arrangement))
    assert arrangement.value == 0


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


@pytest.mark.parametrize(
    "place", [(0, 0, 1), (0, 1, 1 + STEM_BUSES), (0, 0, -1), (1, 0, 0), (0, 2, 0), (2, 0, 0)]
)
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


# Without a server


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


# Parameters and state


def test_parameters_have_names_units_and_steps(plugin: host.Plugin) -> None:
    described = []
    for index in range(plugin.controller.call("parameter_count")):
        info = plugin.info(index)
        assert info.id == index
        described.append((host.text(info.title), host.text(info.units), info.steps, info.flags))
    assert described == [
        ("Gain", "dB", 0, CAN_AUTOMATE),
        ("Mix", "%", 0, CAN_AUTOMATE),
        ("Stem", "", 2, CAN_AUTOMATE | IS_LIST),
        ("Wait when rendering", "", 1, CAN_AUTOMATE | IS_LIST),
        ("While waiting", "", 2, CAN_AUTOMATE | IS_LIST),
        ("Model", "", 0, CAN_AUTOMATE | IS_LIST),
        ("Lookahead", "", 0, CAN_AUTOMATE | IS_LIST),
        ("Missed blocks", "", 9999, IS_READ_ONLY),
    ]


def test_parameters_begin_with_their_defaults(folder: Path) -> None:
    plugin = host.Plugin(host.bundle())
    shown = [plugin.shown(index) for index in (GAIN, MIX, WAIT, WAITING, MISSED)]
    assert shown == ["0.0", "100.0", "On", "Silence in renders", "0"]
    for index in (GAIN, MIX, WAIT, WAITING, MISSED):
        assert plugin.get(index) == plugin.info(index).initial
    plugin.close()


def test_lists_show_what_the_server_offers(plugin: host.Plugin) -> None:
    assert plugin.texts(MODEL) == ["small", "four stems"]
    assert plugin.texts(STEM) == ["vocals", "instrumental", "mixture"]
    assert plugin.texts(LOOKAHEAD) == ["Whole chunks", "500 ms"]
    plugin.choose(MODEL, "four stems")
    assert plugin.texts(STEM) == ["drums", "bass", "other", "vocals", "instrumental", "mixture"]
    assert plugin.texts(LOOKAHEAD) == ["Whole chunks"]


def test_a_list_of_two_is_not_a_switch_without_names(plugin: host.Plugin) -> None:
    steps = {parameter: plugin.info(parameter).steps for parameter in (STEM, WAIT, MODEL)}
    assert steps == {STEM: 2, WAIT: 1, MODEL: 0}


def test_a_stem_stays_chosen_by_name_when_the_model_changes(plugin: host.Plugin) -> None:
    plugin.choose(STEM, "instrumental")
    plugin.choose(MODEL, "four stems")
    assert plugin.shown(STEM) == "instrumental"
    plugin.choose(STEM, "bass")
    plugin.choose(MODEL, "small")
    assert plugin.shown(STEM) == "vocals"  # the first, because this model has no bass


@pytest.mark.parametrize(
    ("parameter", "shown", "latency_ms"),
    [(LOOKAHEAD, "500 ms", 200), (MODEL, "four stems", 300), (MODEL, "small", LATENCY_MS)],
)
def test_latency_follows_the_model_and_the_lookahead(
    plugin: host.Plugin, parameter: int, shown: str, latency_ms: int
) -> None:
    plugin.choose(parameter, shown)
    assert plugin.start() == 44100 * latency_ms // 1000


@pytest.mark.parametrize("restarts", [True, False])
def test_host_is_notified_of_another_model(plugin: host.Plugin, restarts: bool) -> None:
    plugin.start()
    plugin.choose(MODEL, "four stems")
    assert play(plugin, lambda _: plugin.handler.restarts)
    latency, values, parameters, buses = 1 << 3, 1 << 2, 1 << 4, 1 << 7
    assert plugin.handler.restarts == [latency | values | parameters | buses]
    if restarts:
        assert plugin.start() == 13230
        assert not play(plugin, lambda _: len(plugin.handler.restarts) > 1, seconds=0.3)


def test_a_damaged_list_of_models_is_not_used(tmp_path: Path, plugin: host.Plugin) -> None:
    for damaged in ("", "model", OFFERS.replace("\t2\t", "\t9\t"), OFFERS.replace("0\t100", "x")):
        (tmp_path / "models").write_text(damaged)
        other = host.Plugin(host.bundle())
        assert (other.start(), other.texts(MODEL)) == (0, ["Default"])
        other.close()


@pytest.mark.parametrize(
    ("parameter", "value", "shown"),
    [
        *((GAIN, 0.75, "0.0"), (GAIN, 0, "-60.0"), (MIX, 0.5, "50.0"), (STEM, 1, "mixture")),
        (STEM, 0.5, "instrumental"),
        *((WAIT, 1, "On"), (WAITING, 1, "Silence"), (MODEL, 1, "four stems")),
        *((LOOKAHEAD, 1, "500 ms"), (MISSED, 1, "9999")),
    ],
)
def test_values_convert_to_text_and_back(
    plugin: host.Plugin, parameter: int, value: float, shown: str
) -> None:
    assert plugin.shown(parameter, value) == shown
    letters = (ctypes.c_uint16 * 128)(*map(ord, shown))
    number, back = c_uint32(parameter), c_double()
    plugin.controller.call("value_of", number, host.pointer_to(letters), host.pointer_to(back))
    assert back.value == pytest.approx(value)


def test_a_text_that_is_no_value_is_refused(plugin: host.Plugin) -> None:
    for parameter, shown in {GAIN: "loud", STEM: "kazoo"}.items():
        letters = (ctypes.c_uint16 * 128)(*map(ord, shown))
        arguments = c_uint32(parameter), host.pointer_to(letters), host.pointer_to(c_double())
        assert plugin.controller.call("value_of", *arguments) == NO


def test_names_beyond_ascii_are_shown(tmp_path: Path, plugin: host.Plugin) -> None:
    (tmp_path / "models").write_text(OFFERS.replace("vocals", "Gesänge 🎤"), encoding="utf-8")
    other = host.Plugin(host.bundle())
    shown = other.shown(STEM)
    assert shown.encode("utf-16", "surrogatepass").decode("utf-16") == "Gesänge 🎤"
    other.close()


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
    assert plugin.set(MISSED, 0.5) == INVALID
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
    for parameter, value in {GAIN: 0.1, MIX: 1 / 3, WAIT: 0, WAITING: 1}.items():
        plugin.set(parameter, value)
    plugin.choose(MODEL, "four stems")
    plugin.choose(STEM, "bass")
    twin = host.Plugin(host.bundle())
    assert twin.load(plugin.save()) == OK
    assert [twin.get(p) for p in (GAIN, MIX, WAIT, WAITING)] == [0.1, 1 / 3, 0, 1]
    assert [twin.shown(p) for p in (MODEL, STEM)] == ["four stems", "bass"]
    assert twin.save() == plugin.save()
    twin.close()


def test_a_saved_choice_needs_neither_the_server_nor_its_list(
    plugin: host.Plugin, tmp_path: Path
) -> None:
    plugin.choose(MODEL, "four stems")
    plugin.choose(STEM, "bass")
    state = plugin.save()
    for offered in ("", OFFERS.split("model\tfour")[0]):
        (tmp_path / "models").write_text(offered)
        twin = host.Plugin(host.bundle())
        assert twin.load(state) == OK
        assert twin.start() == 13230
        assert [twin.shown(p) for p in (MODEL, STEM)] == ["four stems", "bass"]
        twin.close()


def test_state_of_the_first_version_is_read_and_waits_in_renders(plugin: host.Plugin) -> None:
    assert plugin.load(b"bsmamba2 1\n0.25\n0.5\n0.0625\n0\n") == OK
    shown = [plugin.shown(p) for p in (GAIN, MIX, STEM, WAIT)]
    assert shown == ["-40.0", "50.0", "instrumental", "On"]


@given(st.binary(max_size=300), st.integers(0, 300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_state_leaves_values_in_range(plugin: host.Plugin, damage: bytes, cut: int) -> None:
    plugin.load(damage)
    plugin.load(plugin.save()[:cut] + damage)
    for parameter in range(8):
        assert 0 <= plugin.get(parameter) <= 1
        assert plugin.shown(parameter)


def test_oversized_state_is_refused(plugin: host.Plugin) -> None:
    assert plugin.load(plugin.save() + bytes(1 << 20)) != OK


def test_instances_are_counted(plugin: host.Plugin) -> None:
    count = plugin.library.bsmamba2_instances
    before = count()
    twin = host.Plugin(host.bundle())
    assert count() == before + 1
    twin.close()
    assert count() == before
