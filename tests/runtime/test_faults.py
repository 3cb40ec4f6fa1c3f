"""Faults during a run: full disks, read-only folders, songs and folders that vanish."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import soundfile

from bsmamba2 import AudioError, Separator
from support.commands import ENVIRONMENT
from support.engines import Stubs
from support.fixtures import WriteSong

WITH_FILE_SIZE_LIMIT = """
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


@pytest.mark.skipif(
    sys.platform == "win32", reason="Windows cannot limit the file size of a process"
)
@pytest.mark.parametrize("limit", [0, 20, 5000, 100_000])
@pytest.mark.parametrize("name", ["song.wav", "song.flac"])
def test_a_failing_write_is_reported_in_one_sentence_and_leaves_no_file(
    song: WriteSong, tmp_path: Path, name: str, limit: int
) -> None:
    tests, out = str(Path(__file__).parents[1]), tmp_path / "out"
    arguments = [str(song(name)), str(out), tests, str(limit)]
    command = [sys.executable, "-c", WITH_FILE_SIZE_LIMIT, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (2, ""), run.stderr
    assert len(run.stdout.splitlines()) == 1
    assert "cannot be written" in run.stdout
    assert list(out.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
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
def test_a_full_disk_is_reported_as_full_and_no_file_remains(
    stub: Stubs, song: WriteSong, small_disk: Path, name: str
) -> None:
    path = song(name, samples=400_000)
    with pytest.raises(AudioError, match="no space left on the disk"):
        Separator(stub.half()).separate_file(path, small_disk, record=True)
    assert list(small_disk.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_read_only_folder_is_reported_in_one_sentence(
    stub: Stubs, song: WriteSong, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    with pytest.raises(AudioError, match=r"cannot be written \(Permission denied\)"):
        Separator(stub.half()).separate_file(song(), out)


def test_a_song_truncated_midway_is_an_error_and_leaves_no_file(
    stub: Stubs, song: WriteSong
) -> None:
    path = song(samples=400_000)
    with pytest.raises(AudioError, match=r"was truncated while it was read, at \d"):
        Separator(stub.half()).separate_file(
            path, progress=lambda done, total: os.truncate(path, 500_000)
        )
    assert list(path.parent.iterdir()) == [path]


def test_a_song_removed_midway_is_separated_to_its_end(stub: Stubs, song: WriteSong) -> None:
    path = song(samples=400_000)
    paths = Separator(stub.half()).separate_file(
        path, progress=lambda done, total: path.unlink(missing_ok=True)
    )
    assert soundfile.info(paths["vocals"]).frames == 400_000


def test_an_output_folder_emptied_midway_is_reported_in_one_sentence(
    stub: Stubs, song: WriteSong, tmp_path: Path
) -> None:
    path, out = song(samples=400_000), tmp_path / "out"

    def remove(done: float, total: float) -> None:
        for part in out.glob(".*"):
            part.unlink()

    with pytest.raises(AudioError, match="cannot be written"):
        Separator(stub.half()).separate_file(path, out, progress=remove)


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5, 6])
def test_a_failing_fsync_is_one_sentence_and_loses_nothing(
    stub: Stubs, song: WriteSong, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    path = song(samples=5000)
    separator, calls, sync = Separator(stub.half()), count(1), os.fsync
    before = {stem: out.read_bytes() for stem, out in separator.separate_file(path).items()}

    def fail_once(file: int) -> None:
        if next(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        sync(file)

    monkeypatch.setattr("os.fsync", fail_once)
    try:
        separator.separate_file(path, overwrite=True, record=True)
    except AudioError as error:
        assert "cannot be written (Input/output error)" in str(error)
    after = {stem: path.with_name(f"song_{stem}.wav").read_bytes() for stem in before}
    assert after == before
    assert not list(path.parent.glob(".*.part"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mount")
@pytest.mark.parametrize("fill", [False, True])
def test_a_full_or_missing_folder_for_temporary_files_does_not_matter(
    song: WriteSong, small_disk: Path, fill: bool
) -> None:
    if fill:
        (small_disk / "full").write_bytes(bytes(512 << 10))
    folder = small_disk if fill else small_disk / "none"
    path = song(samples=5000)
    done = subprocess.run(
        [sys.executable, "-m", "bsmamba2", "separate", str(path), "--device", "cpu"],
        env=ENVIRONMENT | {"TMPDIR": str(folder), "BSMAMBA2_CACHE": os.environ["BSMAMBA2_CACHE"]},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert len(done.stdout.split()) == 2


def test_stems_are_written_to_another_file_system(
    stub: Stubs, song: WriteSong, small_disk: Path
) -> None:
    path = song("song.flac", samples=5000)
    separator = Separator(stub.half())
    for _ in range(2):
        separator.separate_file(path, small_disk, overwrite=True, record=True)
    assert separator.separate_file(path, small_disk, resume=True)
    assert len(list(small_disk.iterdir())) == 3
