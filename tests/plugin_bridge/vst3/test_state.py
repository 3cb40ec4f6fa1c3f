"""The saved state of the VST3: any bytes are accepted or refused, and names outlive the server."""

from __future__ import annotations

import locale
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import vst3_host as host
from support.vst3_abi import GAIN, MIX, MODEL, OK, STEM, WAIT, WAITING
from support.vst3_offers import OFFERS


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
