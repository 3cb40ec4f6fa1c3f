"""The folder on a worker's disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bsmamba2 import AudioError
from bsmamba2_cluster.spool import GIB, Spool
from support.commands import ENVIRONMENT

PROGRAM = """
import os, sys; from pathlib import Path
from bsmamba2_cluster.spool import Spool
with Spool(1, Path(sys.argv[1])).song() as (songs, stems):
    (songs / "song").write_bytes(bytes(1000))
    os.kill(os.getpid(), 9)
"""


def test_a_song_and_its_stems_are_removed_after_it(tmp_path: Path) -> None:
    spool = Spool(1, tmp_path)
    with spool.song() as (songs, stems):
        (songs / "a").write_bytes(b"1")
        (stems / "b").mkdir()
    with spool.song() as (songs, stems):
        assert [*songs.iterdir(), *stems.iterdir()] == []
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_worker_left_is_removed_by_the_next_but_nothing_of_a_living_one(
    tmp_path: Path,
) -> None:
    living = Spool(1, tmp_path)
    killed = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], env=ENVIRONMENT)
    assert killed.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    following = Spool(1, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    with living.song(), following.song():
        pass


def test_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    spool = Spool(1000 / GIB, tmp_path)
    with pytest.raises(AudioError, match="spool_gib"):
        spool.require_room(1001)
    with spool.song() as (songs, stems):
        (songs / "song").write_bytes(bytes(600))
        spool.require_within()
        (stems / "stem").write_bytes(bytes(600))
        with pytest.raises(AudioError, match="spool_gib"):
            spool.require_within()
