"""The script for Reaper, run by Lua against a stub: its command line, and where stems lie."""

# ruff: noqa: N802 - the stub has the names of Reaper

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

lupa = pytest.importorskip("lupa.lua54", reason="no Lua interpreter: pip install lupa")

SCRIPT = Path(__file__).parents[2] / "examples" / "reaper" / "separate_selected_items.lua"

BSMAMBA2 = """#!/bin/sh
printf '%s\\n' "$@" > "{log}.$(ls {folder} | grep -c log)"
[ "$2" = {broken} ] && echo "bsmamba2: {broken} cannot be read" >&2 && exit 2
name=$(basename "$2"); name=${{name%.*}}
mkdir -p "$4"
echo "$4/${{name}}_vocals.wav"; echo "$4/${{name}}_instrumental.wav"
"""


class Thing:
    """A track, an item, a take or a source: values by name."""

    def __init__(self, **values):
        self.values = values


class Reaper:
    """As much of Reaper as the script asks for; what it is asked for and lacks is an error."""

    def __init__(self, project, answers=True):
        self.project, self.answers = project, answers
        self.tracks, self.selection, self.messages, self.undo = [], [], [], []
        self.deferred, self.states, self.refresh, self.now = [], {}, 0, 0.0

    # A project

    def track(self, name=""):
        self.tracks.append(Thing(P_NAME=name, items=[]))
        return self.tracks[-1]

    def item(self, track, file, position=0.0, length=1.0, offset=0.0, section=None, **take):
        source = Thing(file=str(file), section=None, parent=None)
        if section:
            source = Thing(file="", section=section, parent=source)
        own = Thing(D_STARTOFFS=offset, D_PLAYRATE=1.0, source=source, midi=False, **take)
        fades = {"D_FADEINLEN": 0.01, "D_FADEOUTLEN": 0.02}
        item = Thing(D_POSITION=position, D_LENGTH=length, take=own, track=track, **fades)
        track.values["items"].append(item)
        self.selection.append(item)
        return item

    # What the script calls

    def CountSelectedMediaItems(self, project):
        return len(self.selection)

    def GetSelectedMediaItem(self, project, index):
        return self.selection[index]

    def GetActiveTake(self, item):
        return item.values["take"]

    def TakeIsMIDI(self, take):
        return take.values["midi"]

    def GetMediaItemTake_Source(self, take):
        return take.values["source"]

    def PCM_Source_GetSectionInfo(self, source):
        return (source.values["section"] and (True, *source.values["section"])) or (
            False,
            0,
            0,
            False,
        )

    def GetMediaSourceParent(self, source):
        return source.values["parent"]

    def GetMediaSourceFileName(self, source, buffer):
        return source.values["file"]

    def GetMediaItemTrack(self, item):
        return item.values["track"]

    def get(self, thing, name):
        if name == "IP_TRACKNUMBER":
            return self.tracks.index(thing) + 1
        return thing.values.get(name, 0.0)

    def set(self, thing, name, value):
        thing.values[name] = value
        return True

    GetMediaItemTakeInfo_Value = GetMediaItemInfo_Value = GetMediaTrackInfo_Value = get
    SetMediaItemTakeInfo_Value = SetMediaItemInfo_Value = set

    def text(self, thing, name, value, is_set):
        if is_set:
            thing.values[name] = value
        return True, thing.values.get(name, "")

    GetSetMediaTrackInfo_String = GetSetMediaItemTakeInfo_String = text

    def InsertTrackAtIndex(self, index, defaults):
        self.tracks.insert(int(index), Thing(P_NAME="", items=[]))

    def GetTrack(self, project, index):
        return self.tracks[int(index)]

    def ColorToNative(self, red, green, blue):
        return red | green << 8 | blue << 16

    def SetTrackColor(self, track, colour):
        track.values["colour"] = colour

    def AddMediaItemToTrack(self, track):
        item = Thing(track=track)
        track.values["items"].append(item)
        return item

    def AddTakeToMediaItem(self, item):
        item.values["take"] = Thing()
        return item.values["take"]

    def PCM_Source_CreateFromFile(self, path):
        return Thing(file=path)

    def SetMediaItemTake_Source(self, take, source):
        take.values["source"] = source

    def GetExtState(self, section, key):
        return self.states.get((section, key), "")

    def SetExtState(self, section, key, value, keep):
        self.states[section, key] = value

    def GetUserInputs(self, title, count, captions, values):
        return (True, self.answers) if isinstance(self.answers, str) else (self.answers, values)

    def GetProjectPath(self, buffer):
        return str(self.project)

    def RecursiveCreateDirectory(self, path, ignored):
        Path(path).mkdir(parents=True, exist_ok=True)

    def ExecProcess(self, command, timeout):
        assert timeout == -2  # in the background, without waiting
        subprocess.run(command, shell=True, check=True)

    def MB(self, text, title, kind):
        self.messages.append(text)

    def Undo_BeginBlock(self):
        self.undo.append("begin")

    def Undo_EndBlock(self, name, flags):
        self.undo.append(name)

    def PreventUIRefresh(self, change):
        self.refresh += change

    def UpdateArrange(self):
        assert self.refresh == 0

    def time_precise(self):
        self.now += 1.37  # a fraction, as the clock has it
        return self.now

    def defer(self, work):
        self.deferred.append(work)


def run(reaper, closes_after=None):
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    shown = []
    calls = [name for name in dir(reaper) if callable(getattr(reaper, name)) and name[0] != "_"]
    lua.globals().reaper = lua.table_from({name: getattr(reaper, name) for name in calls})
    lua.globals().gfx = lua.table_from(
        {name: lambda *_: None for name in ("init", "quit", "set", "rect", "update")}
        | {
            "drawstr": shown.append,
            "getchar": lambda: -1 if closes_after == len(shown) else 0,
        }
    )
    lua.execute(SCRIPT.read_text())
    while reaper.deferred:
        reaper.deferred.pop(0)()
    return shown


@pytest.fixture
def project(tmp_path):
    """A project and a bsmamba2 that only writes down what it was asked."""
    folder = tmp_path / "it's a project"
    folder.mkdir()
    command = tmp_path / "bsmamba2"
    log = tmp_path / "log"
    command.write_text(BSMAMBA2.format(log=log, folder=tmp_path, broken="/broken.wav"))
    command.chmod(0o755)
    reaper = Reaper(folder)
    reaper.states["bsmamba2", "command"] = str(command)
    reaper.commands = lambda: [
        path.read_text().splitlines() for path in sorted(tmp_path.glob("log.*"))
    ]
    return reaper


def placed(track):
    return [
        (
            item.values["D_POSITION"],
            item.values["D_LENGTH"],
            item.values["take"].values["D_STARTOFFS"],
        )
        for item in track.values["items"]
    ]


def test_stems_lie_below_the_item_in_its_place_with_its_trim(project):
    song = project.track("Song")
    project.track("Drums")
    project.item(song, "/music/a song.wav", position=12.5, length=3.25, offset=40.0)
    run(project)
    names = [track.values["P_NAME"] for track in project.tracks]
    assert names == ["Song", "Song – vocals", "Song – instrumental", "Drums"]
    for track, stem in zip(project.tracks[1:3], ("vocals", "instrumental"), strict=True):
        assert placed(track) == [(12.5, 3.25, 40.0)]
        take = track.values["items"][0].values["take"]
        assert take.values["source"].values["file"].endswith(f"/a song_{stem}.wav")


def test_speed_fades_and_volume_go_along_and_the_item_is_muted(project):
    song = project.track()
    item = project.item(song, "/a.wav", B_PPITCH=1.0, D_VOL=0.5)
    item.values["take"].values["D_PLAYRATE"] = 1.25
    run(project)
    assert item.values["B_MUTE"] == 1
    (stem,) = project.tracks[1].values["items"]
    assert (stem.values["D_FADEINLEN"], stem.values["D_FADEOUTLEN"]) == (0.01, 0.02)
    take = stem.values["take"].values
    assert (take["D_PLAYRATE"], take["B_PPITCH"], take["D_VOL"]) == (1.25, 1.0, 0.5)


def test_a_section_counts_from_the_start_of_its_file(project):
    project.item(project.track(), "/a.wav", offset=1.5, section=(10.0, 5.0, False))
    run(project)
    assert placed(project.tracks[1]) == [(0.0, 1.0, 11.5)]


def test_items_of_one_file_are_separated_once_and_share_tracks(project):
    song, other = project.track("A"), project.track("B")
    project.item(song, "/a.wav", position=0.0)
    project.item(song, "/a.wav", position=9.0, offset=2.0)
    project.item(other, "/a.wav", position=4.0)
    run(project)
    assert len(project.commands()) == 1
    assert len(project.tracks) == 6
    assert placed(project.tracks[1]) == [(0.0, 1.0, 0.0), (9.0, 1.0, 2.0)]


def test_the_command_line_is_what_bsmamba2_takes(project):
    project.answers = "my model.ckpt,cuda:1"
    project.item(project.track(), '/it\'s $HOME/a "b".wav')
    run(project)
    (words,) = project.commands()
    assert words[:3] == ["separate", '/it\'s $HOME/a "b".wav', "-o"]
    assert words[3].startswith(f"{project.project}/stems/")
    assert words[4:] == ["--model", "my model.ckpt", "--device", "cuda:1"]

    from bsmamba2.commands.separate import separate

    parsed = separate.make_context("separate", words[1:]).params
    assert (parsed["model"], parsed["device"]) == ("my model.ckpt", "cuda:1")


def test_the_answers_are_there_the_next_time(project):
    project.answers = "m.onnx,cpu"
    project.item(project.track(), "/a.wav")
    run(project)
    project.answers = True
    run(project)
    assert project.commands()[1][4:] == ["--model", "m.onnx", "--device", "cpu"]


def test_songs_of_one_name_have_folders_of_their_own(project):
    for folder in ("one", "two"):
        project.item(project.track(), f"/{folder}/song.wav")
    run(project)
    assert len({words[3] for words in project.commands()}) == 2


def test_all_of_it_is_one_undo_step(project):
    project.item(project.track(), "/a.wav")
    run(project)
    assert project.undo == ["begin", "Separate selected items"]


def test_tracks_have_a_colour_by_stem(project):
    project.item(project.track(), "/a.wav")
    run(project)
    colours = [track.values["colour"] for track in project.tracks[1:]]
    assert len(set(colours)) == 2
    assert all(colour & 0x1000000 for colour in colours)


def test_progress_names_the_song_and_how_many_there_are(project):
    for name in ("a", "b"):
        project.item(project.track(), f"/{name}.wav")
    shown = run(project)
    assert shown[0].startswith("1 of 2: a.wav, ")
    assert shown[-1].startswith("2 of 2: b.wav, ")


def test_a_song_that_fails_is_said_and_the_others_are_placed(project):
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
def test_what_cannot_be_separated_is_said_and_nothing_is_touched(project, change, message):
    change(project.item(project.track(), "/a.wav"))
    run(project)
    assert message in project.messages[0]
    assert (len(project.tracks), project.undo) == (1, [])


def test_nothing_selected_is_said(project):
    run(project)
    assert project.messages == ["Select one or more items with audio first."]


def test_a_closed_dialogue_or_window_changes_nothing(project):
    project.item(project.track(), "/a.wav")
    project.answers = False
    run(project)
    assert not project.commands()
    project.answers = True
    run(project, closes_after=0)
    assert (len(project.tracks), project.undo) == (1, [])
    assert "PATH" in os.environ
