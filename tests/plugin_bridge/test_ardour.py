"""Ardour: insert, automate, export, freeze, duplicate, reopen; the plugin starts the server.

The songs are noise, so a track that is one sample late is seen. The stub model has two stems: a
quarter of the mixture, and the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard.commands import RESOURCES, install_bundle
from bsmamba2_pedalboard.offered_models import OfferedModels
from support import ardour, stub_server
from support.vst3_abi import STEM

if reason := ardour.missing():
    pytest.skip(reason, allow_module_level=True)

SECONDS, TRACKS = 4, 3
SAMPLES = SECONDS * ardour.RATE
SWITCH = 2 * ardour.RATE
FADE = 256
QUARTER, REST = 0.25, 0.75

AUTOMATE = f"""
local list = ARDOUR.LuaAPI.plugin_automation(track:nth_plugin(0), {STEM})
list:set_interpolation(Evoral.InterpolationStyle.Discrete)
list:editor_add(Temporal.timepos_t(0), 0, false)
list:editor_add(Temporal.timepos_t({SWITCH}), 1, false)
local parameter = Evoral.Parameter(ARDOUR.AutomationType.PluginAutomation, 0, {STEM})
local control = track:nth_plugin(0):to_automatable():automation_control(parameter, false)
control:set_automation_state(ARDOUR.AutoState.Play)
"""
CHOOSE_REST = f"ARDOUR.LuaAPI.set_plugin_insert_param(insert, {STEM}, 1)"
FREEZE = f"""
assert(ARDOUR.LuaAPI.wait_for_process_callback({ardour.CYCLES}, 120000))
local thread, outputs = ARDOUR.InterThreadInfo(), track:main_outs()
local region = track:to_track():bounce_range(0, {SAMPLES}, thread, outputs, false, "frozen")
assert(not region:isnil(), "nothing was bounced")
"""
DESCRIBE = """
local effect = insert:plugin(0)
for i = 0, effect:parameter_count() - 1 do
  local _, results = effect:get_parameter_descriptor(i, ARDOUR.ParameterDescriptor())
  local description = results[2]
  local kind = effect:parameter_is_input(i) and "input" or "output"
  if description.toggled then kind = "switch" end
  local range = string.format("%g to %g", description.lower, description.upper)
  print("parameter|" .. effect:parameter_label(i) .. "|" .. kind .. "|" .. range)
end
"""


@dataclass
class Session:
    """A session with the plugin on its first track."""

    host: ardour.Ardour
    path: Path
    songs: list[Audio]
    server: Path
    bundle: Path

    def export(self) -> Audio:
        """Exports without a server; returns what the plugin's track gave."""
        stub_server.stop(self.server)
        return self.track(self.host.export(self.path, self.path.with_suffix(".wav")))

    def track(self, output: Audio) -> Audio:
        """Subtracts the other tracks from an export."""
        assert output.shape == self.songs[0].shape
        rest: Audio = output - sum(self.songs[1:])
        return rest


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("s")
    folder.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BSMAMBA2_SERVE_DIR", str(folder))
        yield folder
        stub_server.stop(folder)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, server: Path) -> Session:
    folder = tmp_path_factory.mktemp("ardour")
    offers = OfferedModels(stub_server.separator(), headroom_ms=50).to_text()
    bundle = install_bundle(stub_server.command(1, 0.05), offers, folder / "home" / ".vst3")
    host = ardour.Ardour(folder / "home")
    host.scan(bundle)
    random = np.random.default_rng(0)
    songs = [random.uniform(-0.2, 0.2, (2, SAMPLES)).astype(np.float32) for _ in range(TRACKS)]
    path = host.create(folder / "song", songs)
    return Session(host, path, songs, server, bundle)


def close(output: Audio, expected: Audio) -> None:
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


def test_parameters_are_controls_that_show_names_and_a_meter(session: Session) -> None:
    """Ardour shows the names of a list unless it is a switch."""
    lines = session.host.change(session.path, DESCRIBE)
    assert [line.split("|")[1:] for line in lines if line.startswith("parameter|")] == [
        ["Gain", "input", "-60 to 20"],
        ["Mix", "input", "0 to 100"],
        ["Stem", "input", "0 to 2"],
        ["Wait when rendering", "switch", "0 to 1"],
        ["While waiting", "input", "0 to 2"],
        ["Model", "input", "0 to 0.01"],
        ["Lookahead", "input", "0 to 0.01"],
        ["Missed blocks", "output", "0 to 9999"],
    ]


def test_an_export_is_separated_and_aligned_with_the_other_tracks(session: Session) -> None:
    close(session.export(), QUARTER * session.songs[0])


def test_a_bounce_as_by_freeze_is_separated_and_aligned(session: Session) -> None:
    stub_server.stop(session.server)
    session.host.change(session.path, FREEZE)
    files = session.path / "interchange" / session.path.name / "audiofiles"
    frozen = [ardour.read(files / f"frozen%{side}.wav") for side in "LR"]
    close(np.concatenate(frozen), QUARTER * session.songs[0])


def test_the_chosen_stem_survives_save_and_reopen(session: Session) -> None:
    session.host.change(session.path, CHOOSE_REST)
    session.host.change(session.path, "")
    close(session.export(), REST * session.songs[0])


def test_a_duplicate_on_another_track_has_the_same_stem(session: Session, tmp_path: Path) -> None:
    twin = replace(session, path=shutil.copytree(session.path, tmp_path / session.path.name))
    twin.host.change(twin.path, CHOOSE_REST)
    ardour.duplicate_plugin(twin.path)
    first, second = session.songs[:2]
    close(twin.export(), REST * first + (REST - 1) * second)


def test_automation_switches_the_stem_where_it_says(session: Session) -> None:
    session.host.change(session.path, AUTOMATE)
    output, song = session.export(), session.songs[0]
    close(output[:, :SWITCH], QUARTER * song[:, :SWITCH])
    close(output[:, SWITCH + FADE + 1 :], REST * song[:, SWITCH + FADE + 1 :])


def test_an_export_whose_server_is_killed_is_silent_from_there_and_the_next_is_right(
    session: Session, tmp_path: Path
) -> None:
    started = tmp_path / "started"  # the server starts only once
    once = ["/bin/sh", "-c", 'mkdir "$0" && exec "$@"', str(started)]
    words = [*once, *stub_server.command(0, 0.3)]
    (session.bundle / RESOURCES / "serve").write_text("\n".join(words) + "\n")
    session.host.change(session.path, CHOOSE_REST)
    stub_server.stop(session.server)
    process = session.host.start_export(session.path, tmp_path / "out.wav")
    stub_server.kill_when_serving(session.server)
    text = ardour.finish(process)
    assert "a part of this render could not be separated" in text
    output = session.track(ardour.read(tmp_path / "out.wav"))
    assert (np.abs(output) <= REST * np.abs(session.songs[0]) + 1e-6).all()
    assert not np.abs(output[:, -ardour.RATE :] > 1e-6).any()
    started.rmdir()
    close(session.export()[:, SWITCH + FADE + 1 :], REST * session.songs[0][:, SWITCH + FADE + 1 :])
