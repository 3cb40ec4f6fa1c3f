"""What can go wrong under a run: full disks, folders that take nothing, songs that vanish."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from bsmamba2 import AudioError, Separator

FULL = """
import resource, sys
from bsmamba2 import Error, Separator
sys.path.insert(0, sys.argv[3])
from support.engines import StubEngine, half
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
try:
    Separator(StubEngine(half)).separate_file(sys.argv[1], sys.argv[2], record=True)
except Error as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
@pytest.mark.parametrize("limit", [0, 20, 5000, 100_000])
@pytest.mark.parametrize("name", ["song.wav", "song.flac"])
def test_a_disk_that_takes_no_more_is_one_sentence_and_no_file(song, tmp_path, name, limit):
    tests, out = str(Path(__file__).parents[1]), tmp_path / "out"
    arguments = [sys.executable, "-c", FULL, str(song(name)), str(out), tests, str(limit)]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (2, ""), run.stderr
    assert len(run.stdout.splitlines()) == 1
    assert "cannot be written" in run.stdout
    assert list(out.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of half a MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("name", ["song.wav", "song.flac"])
def test_a_full_disk_is_called_full_and_keeps_nothing(stub, song, small_disk, name):
    path = song(name, samples=400_000)
    with pytest.raises(AudioError, match="no space left on the disk"):
        Separator(stub.half()).separate_file(path, small_disk, record=True)
    assert list(small_disk.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_read_only_folder_is_one_sentence(stub, song, tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    with pytest.raises(AudioError, match=r"cannot be written \(Permission denied\)"):
        Separator(stub.half()).separate_file(song(), out)


def test_a_song_that_is_cut_off_midway_is_an_error_and_leaves_no_file(stub, song):
    path = song(samples=400_000)
    with pytest.raises(AudioError, match=r"became shorter while it was read, and was left at \d"):
        Separator(stub.half()).separate_file(
            path, progress=lambda done, total: os.truncate(path, 500_000)
        )
    assert list(path.parent.iterdir()) == [path]


def test_a_song_that_is_removed_midway_is_separated_to_its_end(stub, song):
    path = song(samples=400_000)
    made = Separator(stub.half()).separate_file(
        path, progress=lambda done, total: path.unlink(missing_ok=True)
    )
    assert soundfile.info(made["vocals"]).frames == 400_000


def test_an_output_folder_that_is_removed_midway_is_one_sentence(stub, song, tmp_path):
    path, out = song(samples=400_000), tmp_path / "out"

    def remove(done, total):
        for part in out.glob(".*"):
            part.unlink()

    with pytest.raises(AudioError, match="cannot be written"):
        Separator(stub.half()).separate_file(path, out, progress=remove)
