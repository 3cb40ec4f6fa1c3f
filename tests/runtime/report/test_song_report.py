"""The report of a song: a file that appears when it is complete, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bsmamba2 import AudioError
from bsmamba2.files.song_file import SongFile
from bsmamba2.report.song_report import SongReport, require_free, require_size
from support.engines import Stubs
from support.fixtures import WriteSong


def write(path: Path, song: Path, stub: Stubs, overwrite: bool = False) -> None:
    """Writes the report of a song whose stems are its halves."""
    with SongFile(song) as opened:
        report = SongReport(path, opened, stub.half().manifest, overwrite, 1)
        with report:
            for block in report.heard(opened.blocks()):
                report.push(np.stack([block / 2, block / 2]))
            report.finish({})
            assert not path.exists() or overwrite
            report.publish()


def test_the_page_appears_complete(song: WriteSong, stub: Stubs, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write(path, song("a.wav", samples=5000), stub)
    text = path.read_text(encoding="utf-8")
    assert text.endswith("</html>\n")
    assert "The stems sum to the song exactly." in text
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_nothing_is_left_after_a_failure(song: WriteSong, stub: Stubs, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    with (
        SongFile(song("a.wav", samples=500)) as opened,
        pytest.raises(ZeroDivisionError),
        SongReport(path, opened, stub.half().manifest, False),
    ):
        raise ZeroDivisionError
    assert list(path.parent.iterdir()) == []


def test_an_existing_page_is_replaced_only_on_request(
    song: WriteSong, stub: Stubs, tmp_path: Path
) -> None:
    path, audio = tmp_path / "report.html", song("a.wav", samples=500)
    path.write_text("mine")
    with pytest.raises(AudioError, match="exists already: choose another file, or allow"):
        write(path, audio, stub)
    assert path.read_text() == "mine"
    write(path, audio, stub, overwrite=True)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_two_runs_do_not_write_one_page(song: WriteSong, stub: Stubs, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    with (
        SongFile(song("a.wav", samples=500)) as opened,
        SongReport(path, opened, stub.half().manifest, False),
        pytest.raises(AudioError, match="is being written by another run"),
    ):
        write(path, opened.path, stub)


def test_neither_the_song_nor_a_folder_is_replaced(song: WriteSong, tmp_path: Path) -> None:
    path = song("a.wav", samples=500)
    with pytest.raises(AudioError, match="is the song itself"):
        require_free(path, path, overwrite=True)
    with pytest.raises(AudioError, match="is a folder: name a file in it"):
        require_free(tmp_path, path, overwrite=True)


@pytest.mark.parametrize("size_mb", [0, 0.5, 1001, float("nan")])
def test_a_size_that_no_page_can_have_is_refused(size_mb: float) -> None:
    with pytest.raises(AudioError, match=r"size_mb must be 1 to 1000 MB; got"):
        require_size(size_mb)
