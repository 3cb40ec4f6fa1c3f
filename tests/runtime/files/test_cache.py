"""Cache records are read whole or not at all, and a missing record is never an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import Error
from bsmamba2.files.cache import (
    cache_folder,
    read_record,
    shared_folder,
    write_bytes,
    write_record,
)

CONTENT = {"about": {"hardware": "Fast Card ✓"}, "snr_db": 101.25}


def test_the_environment_overrides_the_system_s_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("BSMAMBA2_CACHE")
    assert cache_folder().name == "bsmamba2"


def test_a_relative_cache_folder_becomes_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BSMAMBA2_CACHE", "mine")
    assert cache_folder() == tmp_path / "mine"


def test_a_written_record_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "record.json"
    assert write_record(path, CONTENT)
    assert read_record(path) == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_record_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "none.json") is None
    assert read_record(tmp_path) is None


@given(data=st.data())
def test_a_damaged_record_is_none_or_unchanged(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "record.json"
    write_record(path, CONTENT)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert read_record(path) in (None, CONTENT)


@pytest.mark.parametrize("text", ["", "[]", "1", '{"sha256": 1}', "[" * 10_000, "\0"])
def test_a_file_that_is_not_a_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    assert read_record(tmp_path / "record.json") is None


def test_an_unwritable_cache_returns_false_and_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not write_record(tmp_path / "file" / "record.json", CONTENT)
    assert not write_bytes(tmp_path / "file" / "bytes", b"x")


WRITER = """
import sys
from pathlib import Path
from bsmamba2.files.cache import read_record, write_record
path = Path(sys.argv[1])
for number in range(100):
    assert write_record(path, {"number": number, "padding": "x" * 5000})
    assert read_record(path) is not None, number
"""


def test_two_processes_never_see_half_a_record(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "record.json")]
    processes = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    record = read_record(tmp_path / "record.json")
    assert record is not None
    assert record["number"] == 99
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a record in a cache that was just created, with the loosest umask."""
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    before = os.umask(0)
    try:
        assert write_record(tmp_path / "cache" / "kind" / "record.json", CONTENT)
    finally:
        os.umask(before)
    return tmp_path / "cache" / "kind" / "record.json"


@posix
def test_only_this_user_can_write_a_new_cache(kept: Path) -> None:
    assert read_record(kept) == CONTENT
    modes = [path.stat().st_mode & 0o022 for path in (kept, kept.parent, kept.parent.parent)]
    assert modes == [0, 0, 0]


@posix
@pytest.mark.parametrize("level", [0, 1, 2], ids=["file", "folder", "cache"])
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_record_that_others_can_write_or_replace_is_none(
    kept: Path, level: int, mode: int
) -> None:
    shared = (kept, *kept.parents)[level]
    shared.chmod(mode)
    assert read_record(kept) is None
    assert shared_folder(kept) == (shared if level else None)
    shared.chmod(0o700)
    assert read_record(kept) == CONTENT


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs two users")
def test_a_record_of_another_user_is_none(kept: Path) -> None:
    os.chown(kept, 12345, 12345)
    assert read_record(kept) is None
    assert read_record(kept, shipped=True) == CONTENT


@posix
def test_links_pipes_and_devices_are_no_records(kept: Path) -> None:
    (kept.parent / "link.json").symlink_to(kept)
    (kept.parent / "zero.json").symlink_to("/dev/zero")
    os.mkfifo(kept.parent / "pipe.json")
    for name in ("link", "zero", "pipe"):
        assert read_record(kept.parent / f"{name}.json") is None


@pytest.mark.parametrize("configured", [None, "~/mine", "~nobody-has-this-name/mine"])
def test_without_a_home_folder_the_error_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, configured: str | None
) -> None:
    pwd = pytest.importorskip("pwd")

    def no_entry(user: object) -> None:
        raise KeyError(user)

    for lookup in ("getpwuid", "getpwnam"):
        monkeypatch.setattr(pwd, lookup, no_entry)
    for variable in ("HOME", "XDG_CACHE_HOME", "BSMAMBA2_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    if configured:
        monkeypatch.setenv("BSMAMBA2_CACHE", configured)
    with pytest.raises(Error, match="no home folder: set HOME, or BSMAMBA2_CACHE to a folder"):
        cache_folder()
