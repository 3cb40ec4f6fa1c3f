"""The user's cache: whole or nothing, and nothing is never an error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.files.cache import cache_folder, read_record, write_record

CONTENT = {"about": {"hardware": "Fast Card ✓"}, "snr_db": 101.25}


def test_the_folder_is_what_the_environment_says_or_the_system_s(monkeypatch, tmp_path):
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("BSMAMBA2_CACHE")
    assert cache_folder().name == "bsmamba2"


def test_a_relative_folder_stays_where_it_was_asked_for(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BSMAMBA2_CACHE", "mine")
    assert cache_folder() == tmp_path / "mine"


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "new" / "folder" / "record.json"
    assert write_record(path, CONTENT)
    assert read_record(path) == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_what_was_never_written_is_nothing(tmp_path):
    assert read_record(tmp_path / "none.json") is None
    assert read_record(tmp_path) is None


@given(data=st.data())
def test_a_damaged_record_is_nothing_or_what_was_written(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "record.json"
    write_record(path, CONTENT)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert read_record(path) in (None, CONTENT)


@pytest.mark.parametrize("text", ["", "[]", "1", '{"sha256": 1}', "[" * 10_000, "\0"])
def test_what_is_no_record_is_nothing(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    assert read_record(tmp_path / "record.json") is None


def test_a_cache_that_cannot_be_written_is_told_and_no_error(tmp_path):
    (tmp_path / "file").touch()
    assert not write_record(tmp_path / "file" / "record.json", CONTENT)


WRITER = """
import sys
from pathlib import Path
from bsmamba2.files.cache import read_record, write_record
path = Path(sys.argv[1])
for number in range(100):
    assert write_record(path, {"number": number, "padding": "x" * 5000})
    assert read_record(path) is not None, number
"""


def test_two_processes_never_see_half_a_record(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "record.json")]
    processes = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert read_record(tmp_path / "record.json")["number"] == 99
