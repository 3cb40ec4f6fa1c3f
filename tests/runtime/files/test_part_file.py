"""A file appears under its name whole, and nothing else stays, whenever Ctrl-C comes."""

from __future__ import annotations

import dis
import os
import sys
from itertools import count

import numpy as np
import pytest

from bsmamba2.files import part_file, stem_files
from bsmamba2.files.encoding import Encoding
from bsmamba2.files.part_file import PartFile, WriteInProgress, write_atomically
from bsmamba2.files.stem_files import StemFiles
from bsmamba2.files.tags import Tags

WAV = Encoding("WAV", "PCM_16", ".wav")
LOOKS = {"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}
FILES = {part_file.__file__, stem_files.__file__}


def make_stems(folder):
    """Two stems, of which one leaves full scale midway and becomes another file."""
    wanted = {"clip": "float", "overwrite": False, "tags": Tags(fields={"title": ["x"]})}
    with StemFiles(folder, ["a", "b"], WAV, 8000, 1, **wanted) as files:
        files.write(np.full((2, 1, 10), 0.5))
        files.write(np.array([[[0.5]], [[1.5]]]))
        files.finish()
        files.publish()


def interrupt_at(moment, work):
    """Ctrl-C at the nth moment in the modules above; False where work has fewer.

    Python looks for it at the start of a function, after a call, and where a loop goes on. What
    cleans up is let through: only one Ctrl-C comes.
    """
    left, before = moment, {}

    def trace(frame, event, arg):
        nonlocal left
        if frame.f_code.co_filename not in FILES or frame.f_code.co_name == "_discard":
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= before.get(frame) in LOOKS
            before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
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
def test_ctrl_c_at_any_moment_leaves_all_stems_or_nothing(tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(part_file, "_hold", lambda file: False)
    step = int(os.environ.get("BSMAMBA2_TEST_EVERY", "7"))
    for moment in count(0, step):
        folder = tmp_path / str(moment)
        goes_on = interrupt_at(moment, lambda folder=folder: make_stems(folder))
        left = {path.name for path in folder.iterdir()} if folder.exists() else set()
        assert left in (set(), {"a.wav", "b.wav"}), moment
        if not goes_on:
            break
    assert moment > 200
    assert left


def test_what_another_run_makes_is_neither_taken_nor_removed(tmp_path):
    one, other = PartFile(tmp_path / "x"), PartFile(tmp_path / "x")
    one.open()
    with pytest.raises(WriteInProgress):
        other.open()
    other.discard()
    one.publish(overwrite=False)
    one.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_a_killed_run_left_is_taken_over(tmp_path):
    (tmp_path / ".x.part").write_bytes(b"ruins")
    write_atomically(tmp_path / "x", b"whole")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"whole"}


def test_without_locks_nothing_but_the_file_stays(tmp_path, monkeypatch):
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
