"""Interfaces and buses of the VST3, as any host finds and arranges them."""

from __future__ import annotations

from ctypes import c_char_p, c_int32, c_uint8, c_uint32, c_uint64, c_void_p

import numpy as np
import pytest

from support import vst3_abi as abi
from support import vst3_host as host
from support.vst3_abi import INVALID, MODEL, MONO, NO, OK, STEREO
from support.vst3_offers import STEM_BUSES


@pytest.mark.parametrize("name", ["UNKNOWN", "BASE", "COMPONENT", "PROCESSOR", "CONTROLLER"])
def test_every_interface_is_found_from_every_other(plugin: host.Plugin, name: str) -> None:
    for interface in (plugin.component, plugin.processor, plugin.controller):
        found = interface.query(getattr(abi, name))
        assert found is not None
        found.call("release", returns=c_uint32)


def test_all_interfaces_have_the_same_identity(plugin: host.Plugin) -> None:
    same = {
        interface.require(abi.UNKNOWN).pointer.value
        for interface in (plugin.component, plugin.processor, plugin.controller)
    }
    assert len(same) == 1
    for _ in range(3):
        plugin.component.call("release", returns=c_uint32)


def test_unknown_interface_is_not_found(plugin: host.Plugin) -> None:
    for interface in (plugin.component, plugin.processor, plugin.controller, plugin.factory):
        assert interface.query(abi.STRANGE) is None


def test_factory_describes_one_audio_effect(plugin: host.Plugin) -> None:
    assert plugin.factory.call("count") == 1
    assert plugin.factory.call("class_info", c_int32(1), c_void_p()) == INVALID
    info = plugin.class_info
    assert info[20:52].rstrip(b"\0") == b"Audio Module Class"
    assert info[52:116].rstrip(b"\0") == b"bsmamba2 Separate"
    assert info[120:248].rstrip(b"\0").startswith(b"Fx")
    for identity in (abi.FACTORY, abi.FACTORY2, abi.UNKNOWN):
        assert plugin.factory.query(identity) is not None


def test_factory_creates_no_unknown_class(plugin: host.Plugin) -> None:
    found = c_void_p(1)
    arguments = c_char_p(abi.STRANGE), c_char_p(abi.COMPONENT), abi.pointer_to(found)
    assert plugin.factory.call("create", *arguments) != OK
    assert found.value is None


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
        info, arrangement = abi.BusInfo(), c_uint64()
        place = c_int32(0), c_int32(direction), c_int32(0)
        assert plugin.component.call("bus_info", *place, abi.pointer_to(info)) == OK
        assert (info.channels, abi.text(info.name)) == (channels, ["Mixture", "Stem"][direction])
        plugin.processor.call(
            "bus_arrangement", c_int32(direction), c_int32(0), abi.pointer_to(arrangement)
        )
        assert arrangement.value == (MONO if channels == 1 else STEREO)


def test_only_the_main_output_is_active_at_first(plugin: host.Plugin) -> None:
    active = []
    for index in range(1 + STEM_BUSES):
        info = abi.BusInfo()
        place = c_int32(0), c_int32(1), c_int32(index)
        plugin.component.call("bus_info", *place, abi.pointer_to(info))
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
    plugin.processor.call("bus_arrangement", *place, abi.pointer_to(arrangement))
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
    setup = abi.Setup(0, 0, 64, 48000)
    assert plugin.processor.call("setup", abi.pointer_to(setup)) == NO


@pytest.mark.parametrize(
    "place", [(0, 0, 1), (0, 1, 1 + STEM_BUSES), (0, 0, -1), (1, 0, 0), (0, 2, 0), (2, 0, 0)]
)
def test_nonexistent_buses_are_refused(plugin: host.Plugin, place: tuple[int, int, int]) -> None:
    numbers = [c_int32(number) for number in place]
    info = abi.BusInfo()
    assert plugin.component.call("bus_info", *numbers, abi.pointer_to(info)) == INVALID
    assert plugin.component.call("activate_bus", *numbers, c_uint8(1)) == INVALID


@pytest.mark.parametrize(
    ("rate", "size", "kind"), [(0, 512, 0), (44100, 0, 0), (44100, 512, 1), (float("nan"), 9, 0)]
)
def test_invalid_setup_is_refused(plugin: host.Plugin, rate: float, size: int, kind: int) -> None:
    setup = abi.Setup(0, kind, size, rate)
    assert plugin.processor.call("setup", abi.pointer_to(setup)) != OK


def test_float32_is_supported_and_float64_is_not(plugin: host.Plugin) -> None:
    assert plugin.processor.call("can_process", c_int32(0)) == OK
    assert plugin.processor.call("can_process", c_int32(1)) == NO
