"""Folders as storage."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bsmamba2_cluster.local_storage import LocalStorage
from bsmamba2_cluster.storage import StorageError
from support.commands import ENVIRONMENT


def test_names_that_are_no_safe_keys_are_refused_and_the_rest_listed(tmp_path: Path) -> None:
    for name in (b"a\nb.flac", b"\xff.flac", "ü#1 %2e.flac".encode()):
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).write_bytes(b"x")
    refused: list[str] = []
    pages = LocalStorage(str(tmp_path)).pages(refused=lambda key, error: refused.append(key))
    assert [entry.key for page in pages for entry in page] == ["ü#1 %2e.flac"]
    assert sorted(refused) == ["a\nb.flac", "\udcff.flac"]


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "loop").symlink_to(tmp_path)
    assert list(LocalStorage(str(tmp_path / "songs")).pages()) == []


def test_one_of_many_threads_creates_an_object(tmp_path: Path) -> None:
    won: list[bool] = []
    start = threading.Barrier(8)

    def create(number: int) -> None:
        start.wait()
        won.append(LocalStorage(str(tmp_path)).create("a/b", f"{number}".encode()))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won.count(True) == 1


def test_a_folder_may_vanish_between_two_writers(tmp_path: Path) -> None:
    """One writer's cleaning removes the empty folder that another is about to write to."""
    storage, stop = LocalStorage(str(tmp_path)), threading.Event()

    def clean() -> None:
        while not stop.is_set():
            storage.replace("work/one", b"1")
            storage.delete(["work/one"])

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for number in range(100):
            assert storage.create(f"work/{number}", b"x")
            storage.delete([f"work/{number}"])
    finally:
        stop.set()
        cleaner.join()


def test_a_killed_writer_leaves_nothing_under_a_final_name(tmp_path: Path) -> None:
    program = "import os, sys\nfrom bsmamba2_cluster import local_storage\n"
    program += "local_storage._sync = lambda path: os.kill(os.getpid(), 9)\n"
    program += "local_storage.LocalStorage(sys.argv[1]).replace('a/song.flac', b'1')"
    process = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=ENVIRONMENT)
    assert process.returncode == -9
    assert [path.suffix for path in (tmp_path / "a").iterdir()] == [".part"]
    assert list(LocalStorage(str(tmp_path)).pages()) == []


def test_a_folder_that_cannot_be_written_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be written"):
        LocalStorage(str(tmp_path / "file")).replace("a", b"1")
