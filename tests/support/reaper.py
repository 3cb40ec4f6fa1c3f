"""A mock of Reaper, and the script for Reaper run in it."""

# ruff: noqa: N802 - the mock has Reaper's names

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "reaper" / "separate_selected_items.lua"

BSMAMBA2 = """#!/bin/sh
printf '%s\\n' "$@" > "{log}.$(ls {folder} | grep -c log)"
[ "$2" = {broken} ] && echo "bsmamba2: {broken} cannot be read" >&2 && exit 2
name=$(basename "$2"); name=${{name%.*}}
mkdir -p "$4"
[ "$2" = /slow.wav ] && touch "$4/.slow.part" && exec sleep 60
for stem in $(cat {folder}/stems); do echo "$4/${{name}}_$stem.wav"; done
"""


class Thing:
    """A track, item, take or source with named values."""

    def __init__(self, **values: Any) -> None:
        self.values: dict[str, Any] = values


class Reaper:
    """The part of Reaper that the script uses; any other call is an error."""

    def __init__(self, project: Path, answers: bool | str = True) -> None:
        self.project, self.answers = project, answers
        self.tracks: list[Thing] = []
        self.selection: list[Thing] = []
        self.messages: list[str] = []
        self.undo: list[str] = []
        self.deferred: list[Callable[[], None]] = []
        self.states: dict[tuple[str, str], str] = {}
        self.refresh, self.now = 0, 0.0
        self.commands: Callable[[], list[list[str]]] = list
        self.at_exit: list[Callable[[], None]] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    # Setting up a project

    def track(self, name: str = "") -> Thing:
        track = Thing(P_NAME=name, items=[])
        self.tracks.append(track)
        return track

    def item(
        self,
        track: Thing,
        file: str | Path,
        position: float = 0.0,
        length: float = 1.0,
        offset: float = 0.0,
        section: tuple[float, float, bool] | None = None,
        **take: Any,
    ) -> Thing:
        source = Thing(file=str(file), section=None, parent=None)
        if section:
            source = Thing(file="", section=section, parent=source)
        new_take = Thing(D_STARTOFFS=offset, D_PLAYRATE=1.0, source=source, midi=False, **take)
        fades = {"D_FADEINLEN": 0.01, "D_FADEOUTLEN": 0.02}
        item = Thing(D_POSITION=position, D_LENGTH=length, take=new_take, track=track, **fades)
        track.values["items"].append(item)
        self.selection.append(item)
        return item

    # Functions that the script calls

    def CountSelectedMediaItems(self, project: int) -> int:
        return len(self.selection)

    def GetSelectedMediaItem(self, project: int, index: int) -> Thing:
        return self.selection[index]

    def GetActiveTake(self, item: Thing) -> Thing | None:
        found: Thing | None = item.values["take"]
        return found

    def TakeIsMIDI(self, take: Thing) -> bool:
        found: bool = take.values["midi"]
        return found

    def GetMediaItemTake_Source(self, take: Thing) -> Thing:
        found: Thing = take.values["source"]
        return found

    def PCM_Source_GetSectionInfo(self, source: Thing) -> tuple[bool, float, float, bool]:
        return (source.values["section"] and (True, *source.values["section"])) or (
            False,
            0,
            0,
            False,
        )

    def GetMediaSourceParent(self, source: Thing) -> Thing | None:
        found: Thing | None = source.values["parent"]
        return found

    def GetMediaSourceFileName(self, source: Thing, buffer: str) -> str:
        found: str = source.values["file"]
        return found

    def GetMediaItemTrack(self, item: Thing) -> Thing:
        found: Thing = item.values["track"]
        return found

    def get(self, thing: Thing, name: str) -> Any:
        if name == "IP_TRACKNUMBER":
            return self.tracks.index(thing) + 1
        return thing.values.get(name, 0.0)

    def set(self, thing: Thing, name: str, value: Any) -> bool:
        thing.values[name] = value
        return True

    GetMediaItemTakeInfo_Value = GetMediaItemInfo_Value = GetMediaTrackInfo_Value = get
    SetMediaItemTakeInfo_Value = SetMediaItemInfo_Value = set

    def text(self, thing: Thing, name: str, value: str, is_set: bool) -> tuple[bool, str]:
        if is_set:
            thing.values[name] = value
        return True, thing.values.get(name, "")

    GetSetMediaTrackInfo_String = GetSetMediaItemTakeInfo_String = text

    def InsertTrackAtIndex(self, index: int, defaults: bool) -> None:
        self.tracks.insert(int(index), Thing(P_NAME="", items=[]))

    def GetTrack(self, project: int, index: int) -> Thing:
        return self.tracks[int(index)]

    def ColorToNative(self, red: int, green: int, blue: int) -> int:
        return red | green << 8 | blue << 16

    def SetTrackColor(self, track: Thing, colour: int) -> None:
        track.values["colour"] = colour

    def AddMediaItemToTrack(self, track: Thing) -> Thing:
        item = Thing(track=track)
        track.values["items"].append(item)
        return item

    def AddTakeToMediaItem(self, item: Thing) -> Thing:
        take = Thing()
        item.values["take"] = take
        return take

    def PCM_Source_CreateFromFile(self, path: str) -> Thing:
        return Thing(file=path)

    def SetMediaItemTake_Source(self, take: Thing, source: Thing) -> None:
        take.values["source"] = source

    def GetExtState(self, section: str, key: str) -> str:
        return self.states.get((section, key), "")

    def SetExtState(self, section: str, key: str, value: str, keep: bool) -> None:
        self.states[section, key] = value

    def GetUserInputs(self, title: str, count: int, captions: str, values: str) -> tuple[bool, str]:
        assert count == len(captions.split("separator")[0].split(",")) - 2
        return (True, self.answers) if isinstance(self.answers, str) else (self.answers, values)

    def atexit(self, work: Callable[[], None]) -> None:
        self.at_exit.append(work)

    def GetProjectPath(self, buffer: str) -> str:
        return str(self.project)

    def RecursiveCreateDirectory(self, path: str, ignored: int) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)

    def ExecProcess(self, command: str, timeout: int) -> None:
        assert timeout == -2  # in the background, without waiting
        self.processes.append(subprocess.Popen(command, shell=True))
        if "slow" not in command and not self.has_slow():
            assert self.processes[-1].wait() == 0

    def has_slow(self) -> bool:
        """Whether the item that takes long is selected."""
        takes = (item.values["take"] for item in self.selection)
        return any(take and take.values["source"].values["file"] == "/slow.wav" for take in takes)

    def MB(self, text: str, title: str, kind: int) -> None:
        self.messages.append(text)

    def Undo_BeginBlock(self) -> None:
        self.undo.append("begin")

    def Undo_EndBlock(self, name: str, flags: int) -> None:
        self.undo.append(name)

    def PreventUIRefresh(self, change: int) -> None:
        self.refresh += change

    def UpdateArrange(self) -> None:
        assert self.refresh == 0

    def time_precise(self) -> float:
        self.now += 1.37  # a fraction, like a real clock
        return self.now

    def defer(self, work: Callable[[], None]) -> None:
        self.deferred.append(work)


def run(
    reaper: Reaper, closes: Callable[[list[str]], bool] = lambda _: False, how: str = "window"
) -> list[str]:
    """Runs the script to its end; returns what its window showed.

    Args:
        closes: whether the user cancels after these lines.
        how: by closing the ``window``, by ``esc`` or by the ``button``.
    """
    import lupa.lua54 as lupa

    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    shown: list[str] = []

    def drawstr(text: str) -> None:
        if text != "Cancel":
            shown.append(text)

    calls = [name for name in dir(reaper) if callable(getattr(reaper, name)) and name[0] != "_"]
    lua.globals().reaper = lua.table_from({name: getattr(reaper, name) for name in calls})
    lua.globals().gfx = lua.table_from(
        {name: lambda *_: None for name in ("init", "quit", "set", "rect", "update")}
        | {"drawstr": drawstr}
    )
    gfx = lua.globals().gfx

    def getchar() -> int:
        time.sleep(0.01)
        if not closes(shown):
            return 0
        gfx.mouse_x, gfx.mouse_y, gfx.mouse_cap = 350, 40, int(how == "button")
        return {"window": -1, "esc": 27, "button": 0}[how]

    gfx.getchar = getchar
    lua.execute(SCRIPT.read_text())
    deadline = time.monotonic() + 60
    while reaper.deferred:
        assert time.monotonic() < deadline
        reaper.deferred.pop(0)()
    for work in reaper.at_exit:
        work()
    for process in reaper.processes:
        assert process.wait(30) == 0
    return shown


def create_project(tmp_path: Path) -> Reaper:
    """A project, with a bsmamba2 that only logs its arguments."""
    folder = tmp_path / "it's a project"
    folder.mkdir()
    command = tmp_path / "bsmamba2"
    log = tmp_path / "log"
    command.write_text(BSMAMBA2.format(log=log, folder=tmp_path, broken="/broken.wav"))
    command.chmod(0o755)
    reaper = Reaper(folder)
    (tmp_path / "stems").write_text("vocals instrumental")
    reaper.states["bsmamba2", "command"] = str(command)
    reaper.commands = lambda: [
        path.read_text().splitlines() for path in sorted(tmp_path.glob("log.*"))
    ]
    return reaper
