"""A file gets its name only when complete, and nothing else remains, even after Ctrl-C."""

from __future__ import annotations

import dis
import os
import stat
import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from bsmamba2.files import part_file, stem_files
from bsmamba2.files.encoding import Encoding
from bsmamba2.files.part_file import (
    PartFile,
    WriteInProgress,
    remove_leftovers,
    replacing,
    write_atomically,
)
from bsmamba2.files.stem_files import StemFiles
from bsmamba2.files.tags import Tags

WAV = Encoding("WAV", "PCM_16", ".wav")
INTERRUPTIBLE = {"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}
FILES = {part_file.__file__, stem_files.__file__}


def write_stems(folder: Path) -> None:
    """Writes two stems; one leaves full scale midway, which changes its encoding."""
    tags = Tags(fields={"title": ["x"]})
    with StemFiles(
        folder, ["a", "b"], WAV, 8000, 1, clip="float", overwrite=False, tags=tags
    ) as files:
        files.write(np.full((2, 1, 10), 0.5))
        files.write(np.array([[[0.5]], [[1.5]]]))
        files.finish()
        files.publish()


def interrupt_at(moment: int, work: Callable[[], None]) -> bool:
    """Raises Ctrl-C at the nth moment in the modules above; False if the work has fewer.

    Python checks for Ctrl-C at the start of a function, after a call, and where a loop repeats.
    The cleanup itself is not interrupted: a run gets only one Ctrl-C.
    """
    left = moment
    previous: dict[FrameType, str] = {}

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in FILES or frame.f_code.co_name == "_discard":
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= previous.get(frame) in INTERRUPTIBLE
            previous[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if left < 0:
                raise KeyboardInterrupt
        return trace

    tracing = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 reads it only when settrace is called
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(tracing)
    return False


@pytest.mark.parametrize("locks", [True, False], ids=["with locks", "without locks"])
def test_ctrl_c_at_any_moment_leaves_all_stems_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    if not locks:
        monkeypatch.setattr(part_file, "_hold", lambda file: False)
    step = int(os.environ.get("BSMAMBA2_TEST_EVERY", "7"))
    for moment in count(0, step):
        folder = tmp_path / str(moment)
        interrupted = interrupt_at(moment, partial(write_stems, folder))
        left = {path.name for path in folder.iterdir()} if folder.exists() else set()
        assert left in (set(), {"a.wav", "b.wav"}), moment
        if not interrupted:
            break
    assert moment > 200
    assert left


def test_a_file_that_another_run_is_writing_is_neither_taken_nor_removed(tmp_path: Path) -> None:
    one, other = PartFile(tmp_path / "x"), PartFile(tmp_path / "x")
    one.open()
    with pytest.raises(WriteInProgress):
        other.open()
    other.discard()
    one.publish(overwrite=False)
    one.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_leftover_of_a_killed_run_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".x.part").write_bytes(b"ruins")
    write_atomically(tmp_path / "x", b"whole")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"whole"}


def test_without_locks_only_the_file_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file, "fcntl", None)
    write_atomically(tmp_path / "x", b"whole")
    one, other = PartFile(tmp_path / "y"), PartFile(tmp_path / "y")
    for part in (one, other):
        part.open()
    one.publish(overwrite=False)
    with pytest.raises(FileExistsError):
        other.publish(overwrite=False)
    for part in (one, other):
        part.discard()
    assert {path.name for path in tmp_path.iterdir()} == {"x", "y"}


def rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def swap(path: Path, data: bytes) -> None:
    """Writes as safetensors does: to another file, which then replaces the path."""
    other = path.with_name("other")
    other.write_bytes(data)
    other.chmod(0o600)
    other.replace(path)


WRITERS = pytest.mark.parametrize("write", [rewrite, swap])


@WRITERS
def test_replacing_shows_the_old_content_until_the_new_is_complete(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with replacing(path) as temporary:
        write(temporary, b"new")
        assert path.read_bytes() == b"old"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"new"}


@WRITERS
def test_an_error_while_replacing_keeps_the_old_content_and_nothing_else(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail_midway() -> None:
        with replacing(path) as temporary:
            write(temporary, b"half of the")
            raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        fail_midway()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"old"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@WRITERS
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_replacing_sets_permissions_before_content_is_written(
    tmp_path: Path, write: Callable[[Path, bytes], None], mode: int
) -> None:
    with replacing(tmp_path / "x", mode=mode) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == mode
        write(temporary, b"secret")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


def test_concurrent_writers_of_one_file_wait_for_each_other(tmp_path: Path) -> None:
    contents = [bytes([k]) * 10_000 for k in range(8)]
    threads = [
        threading.Thread(target=write_atomically, args=(tmp_path / "x", content))
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_hard_link_under_a_temporary_name_keeps_its_content(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"content")
    (tmp_path / ".x.part").hardlink_to(precious)
    write_atomically(tmp_path / "x", b"whole")
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert contents == {"x": b"whole", "precious": b"content"}


def test_a_link_under_a_temporary_name_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"content")
    (tmp_path / ".x.part").symlink_to(precious)
    write_atomically(tmp_path / "x", b"whole", mode=0o600)
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert contents == {"x": b"whole", "precious": b"content"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes")
def test_a_pipe_under_a_temporary_name_is_an_error_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".x.part")
    with pytest.raises(OSError, match="it is a named pipe"):
        write_atomically(tmp_path / "x", b"whole")
    assert stat.S_ISFIFO((tmp_path / ".x.part").lstat().st_mode)


def test_what_a_run_killed_while_it_published_left_is_not_truncated(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / ".x.part").hardlink_to(tmp_path / "x")
    part = PartFile(tmp_path / "x")
    part.open()
    assert (tmp_path / "x").read_bytes() == b"old"
    part.discard()


def test_a_file_that_was_set_aside_and_left_is_removed_by_the_next_run(tmp_path: Path) -> None:
    (tmp_path / ".x.old").write_bytes(bytes(1000))
    write_atomically(tmp_path / "x", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_leftovers_of_a_complete_file_are_removed_unless_they_are_being_written(
    tmp_path: Path,
) -> None:
    for name in ("x", ".x.part", ".x.old", "y"):
        (tmp_path / name).write_bytes(b"content")
    other = PartFile(tmp_path / "y")
    other.open()
    for name in ("x", "y", "z"):
        remove_leftovers(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"x", "y", ".y.part"}
    other.discard()
