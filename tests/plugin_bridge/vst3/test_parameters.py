"""Parameters of the VST3: names, lists, conversions, and the choice of a model."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_uint32
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import vst3_abi as abi
from support import vst3_host as host
from support.serving import play
from support.vst3_abi import GAIN, INVALID, LOOKAHEAD, MISSED, MIX, MODEL, NO, STEM, WAIT, WAITING
from support.vst3_offers import LATENCY_MS, OFFERS

CAN_AUTOMATE, IS_READ_ONLY, IS_LIST = 1, 2, 8


def test_parameters_have_names_units_and_steps(plugin: host.Plugin) -> None:
    described = []
    for index in range(plugin.controller.call("parameter_count")):
        info = plugin.info(index)
        assert info.id == index
        described.append((abi.text(info.title), abi.text(info.units), info.steps, info.flags))
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


@pytest.mark.parametrize(("name", "shown"), [("Ardour", ["0.0 dB", "100.0 %"]), ("Reaper", None)])
def test_texts_have_units_where_the_host_appends_none(
    folder: Path, name: str, shown: list[str] | None
) -> None:
    plugin = host.Plugin(host.bundle(), name=name)
    assert [plugin.shown(index) for index in (GAIN, MIX)] == (shown or ["0.0", "100.0"])
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
    plugin.controller.call("value_of", number, abi.pointer_to(letters), abi.pointer_to(back))
    assert back.value == pytest.approx(value)


def test_a_text_that_is_no_value_is_refused(plugin: host.Plugin) -> None:
    for parameter, shown in {GAIN: "loud", STEM: "kazoo"}.items():
        letters = (ctypes.c_uint16 * 128)(*map(ord, shown))
        arguments = c_uint32(parameter), abi.pointer_to(letters), abi.pointer_to(c_double())
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
