"""The script for Reaper, run against a mock of Reaper: its command line, and its new tracks."""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support.reaper import ROOT, SCRIPT, Reaper, Thing, create_project, run

pytest.importorskip("lupa.lua54", reason="no Lua interpreter: pip install lupa")


@pytest.fixture
def project(tmp_path: Path) -> Reaper:
    return create_project(tmp_path)


def placements(track: Thing) -> list[tuple[float, float, float]]:
    return [
        (
            item.values["D_POSITION"],
            item.values["D_LENGTH"],
            item.values["take"].values["D_STARTOFFS"],
        )
        for item in track.values["items"]
    ]


def test_stems_are_below_the_item_with_its_position_and_trim(project: Reaper) -> None:
    song = project.track("Song")
    project.track("Drums")
    project.item(song, "/music/a song.wav", position=12.5, length=3.25, offset=40.0)
    run(project)
    names = [track.values["P_NAME"] for track in project.tracks]
    assert names == ["Song", "Song – vocals", "Song – instrumental", "Drums"]
    for track, stem in zip(project.tracks[1:3], ("vocals", "instrumental"), strict=True):
        assert placements(track) == [(12.5, 3.25, 40.0)]
        take = track.values["items"][0].values["take"]
        assert take.values["source"].values["file"].endswith(f"/a song_{stem}.wav")


def test_stems_have_the_items_speed_fades_and_volume_and_the_item_is_muted(project: Reaper) -> None:
    song = project.track()
    item = project.item(song, "/a.wav", B_PPITCH=1.0, D_VOL=0.5)
    item.values["take"].values["D_PLAYRATE"] = 1.25
    run(project)
    assert item.values["B_MUTE"] == 1
    (stem,) = project.tracks[1].values["items"]
    assert (stem.values["D_FADEINLEN"], stem.values["D_FADEOUTLEN"]) == (0.01, 0.02)
    take = stem.values["take"].values
    assert (take["D_PLAYRATE"], take["B_PPITCH"], take["D_VOL"]) == (1.25, 1.0, 0.5)


def test_section_offset_counts_from_the_start_of_the_file(project: Reaper) -> None:
    project.item(project.track(), "/a.wav", offset=1.5, section=(10.0, 5.0, False))
    run(project)
    assert placements(project.tracks[1]) == [(0.0, 1.0, 11.5)]


def test_items_of_one_file_are_separated_once_and_share_tracks(project: Reaper) -> None:
    song, other = project.track("A"), project.track("B")
    project.item(song, "/a.wav", position=0.0)
    project.item(song, "/a.wav", position=9.0, offset=2.0)
    project.item(other, "/a.wav", position=4.0)
    run(project)
    assert len(project.commands()) == 1
    assert len(project.tracks) == 6
    assert placements(project.tracks[1]) == [(0.0, 1.0, 0.0), (9.0, 1.0, 2.0)]


def test_command_line_is_valid_for_bsmamba2(project: Reaper) -> None:
    project.answers = f"my model.ckpt\ncuda:1\n{project.states['bsmamba2', 'command']}"
    project.item(project.track(), '/it\'s $HOME/a "b".wav')
    run(project)
    (words,) = project.commands()
    assert words[:3] == ["separate", '/it\'s $HOME/a "b".wav', "-o"]
    assert words[3].startswith(f"{project.project}/stems/")
    assert words[4:] == ["--model", "my model.ckpt", "--device", "cuda:1"]

    from bsmamba2.commands.separate import separate

    parsed = separate.make_context("separate", words[1:]).params
    assert (parsed["model"], parsed["device"]) == ("my model.ckpt", "cuda:1")


def test_dialog_remembers_the_answers(project: Reaper) -> None:
    project.answers = f"m.onnx\ncpu\n{project.states['bsmamba2', 'command']}"
    project.item(project.track(), "/a.wav")
    run(project)
    project.answers = True
    run(project)
    assert project.commands()[1][4:] == ["--model", "m.onnx", "--device", "cpu"]


def test_songs_with_the_same_name_have_separate_folders(project: Reaper) -> None:
    for folder in ("one", "two"):
        project.item(project.track(), f"/{folder}/song.wav")
    run(project)
    assert len({words[3] for words in project.commands()}) == 2


def test_everything_is_one_undo_step(project: Reaper) -> None:
    project.item(project.track(), "/a.wav")
    run(project)
    assert project.undo == ["begin", "Separate selected items"]


def test_tracks_have_a_colour_by_stem(project: Reaper) -> None:
    project.item(project.track(), "/a.wav")
    run(project)
    colours = [track.values["colour"] for track in project.tracks[1:]]
    assert len(set(colours)) == 2
    assert all(colour & 0x1000000 for colour in colours)


def test_progress_shows_the_song_and_the_number_of_songs(project: Reaper) -> None:
    for name in ("a", "b"):
        project.item(project.track(), f"/{name}.wav")
    shown = run(project)
    assert shown[0].startswith("1 of 2: a.wav, ")
    assert shown[-1].startswith("2 of 2: b.wav, ")


def test_failed_song_is_reported_and_the_others_are_placed(project: Reaper) -> None:
    for name in ("/broken.wav", "/a.wav"):
        project.item(project.track(), name)
    run(project)
    assert project.messages == ["bsmamba2: /broken.wav cannot be read\n"]
    assert len(project.tracks) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda item: item.values.update(take=None), "has no audio"),
        (lambda item: item.values["take"].values.update(midi=True), "has no audio"),
        (
            lambda item: item.values["take"].values["source"].values.update(section=(0, 1, True)),
            "reversed",
        ),
        (lambda item: item.values["take"].values["source"].values.update(file=""), "has no file"),
    ],
)
def test_item_that_cannot_be_separated_is_reported_and_nothing_changes(
    project: Reaper, change: Callable[[Thing], None], message: str
) -> None:
    change(project.item(project.track(), "/a.wav"))
    run(project)
    assert message in project.messages[0]
    assert (len(project.tracks), project.undo) == (1, [])


def test_empty_selection_is_reported(project: Reaper) -> None:
    run(project)
    assert project.messages == ["Select one or more items with audio first."]


def test_closed_dialog_or_window_changes_nothing(project: Reaper) -> None:
    project.item(project.track(), "/a.wav")
    project.answers = False
    run(project)
    assert not project.commands()
    project.answers = True
    run(project, lambda _: True)
    assert (len(project.tracks), project.undo) == (1, [])


@pytest.mark.parametrize("how", ["window", "esc", "button"])
def test_cancelling_ends_bsmamba2_and_removes_what_the_run_wrote(project: Reaper, how: str) -> None:
    for file in ("/a.wav", "/slow.wav"):
        project.item(project.track(), file)
    started = time.monotonic()
    before = set(Path(tempfile.gettempdir()).glob("lua_*"))
    run(project, lambda _: bool(list(project.project.rglob(".slow.part"))), how)
    assert time.monotonic() - started < 30
    assert (len(project.tracks), project.undo, project.messages) == (2, [], [])
    assert list((project.project / "stems").iterdir()) == []
    assert set(Path(tempfile.gettempdir()).glob("lua_*")) <= before


def test_the_window_is_drawn_while_bsmamba2_runs(project: Reaper) -> None:
    project.item(project.track(), "/slow.wav")
    shown = run(project, lambda lines: len(lines) > 2 and any(project.project.rglob(".slow.part")))
    assert {line.partition(",")[0] for line in shown} == {"1 of 1: slow.wav"}


def test_every_stem_of_the_model_gets_its_track(project: Reaper) -> None:
    stems = ["vocals", "drums", "bass", "other", "guitar", "piano"]
    (project.project.parent / "stems").write_text(" ".join(stems))
    project.item(project.track("Song"), "/a.wav")
    run(project)
    names = [track.values["P_NAME"] for track in project.tracks]
    assert names == ["Song", *(f"Song – {stem}" for stem in stems)]
    colours = [track.values["colour"] for track in project.tracks[1:]]
    assert len(set(colours)) == len(stems)


def test_a_bsmamba2_that_is_not_found_is_reported_with_how_to_find_it(project: Reaper) -> None:
    project.answers = "\n\n/nowhere/bsmamba2"
    project.item(project.track(), "/a.wav")
    run(project)
    assert project.messages[0].startswith("bsmamba2 was not found. Run this again and enter its")
    assert len(project.tracks) == 1


def test_a_path_of_bsmamba2_may_start_at_home(
    project: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = Path(project.states["bsmamba2", "command"])
    monkeypatch.setenv("HOME", str(command.parent))
    project.answers = f"\n\n~/{command.name} "
    project.item(project.track(), "/a.wav")
    run(project)
    assert (len(project.commands()), project.messages) == (1, [])


INDEX = ROOT / "index.xml"


def test_the_index_for_reapack_offers_this_version_of_the_script() -> None:
    package = ElementTree.parse(INDEX).find("category/reapack")
    assert package is not None
    assert package.attrib["type"] == "script"
    header = dict(re.findall(r"^-- @(\w+) (.+)$", SCRIPT.read_text(), re.MULTILINE))
    assert package.attrib["desc"] == header["description"]
    newest = package.findall("version")[-1]
    assert (newest.attrib["name"], newest.attrib["author"]) == (header["version"], header["author"])
    source = newest.find("source")
    assert source is not None
    assert source.attrib["hash"] == "1220" + hashlib.sha256(SCRIPT.read_bytes()).hexdigest()
    assert (source.text or "").strip().endswith(f"/raw/main/{SCRIPT.relative_to(ROOT).as_posix()}")
    assert source.attrib["main"] == "main"


def test_the_index_has_the_attributes_that_reapack_requires() -> None:
    root = ElementTree.parse(INDEX).getroot()
    assert (root.tag, root.attrib["version"], root.attrib["name"]) == ("index", "1", "bsmamba2")
    version = root.find("category/reapack/version")
    assert version is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", version.attrib["time"])
    assert re.match(r"\d", version.attrib["name"])
