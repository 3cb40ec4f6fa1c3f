"""``bsmamba2 report`` and ``separate --report``: a page, with or without the stems' files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.commands import StubCommand
from support.engines import Stubs
from support.files import names
from support.fixtures import WriteSong


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, stub: Stubs) -> StubCommand:
    return StubCommand(monkeypatch, stub.half())


def test_a_report_is_one_file_next_to_the_song(run: StubCommand, song: WriteSong) -> None:
    path = song("a.wav", samples=5000)
    result = run("report", path)
    assert result.stdout == f"{path.parent / 'a_report.html'}\n"
    assert names(path.parent) == ["a.wav", "a_report.html"]


def test_the_page_states_what_was_done(run: StubCommand, song: WriteSong, tmp_path: Path) -> None:
    run("report", song("a.wav", samples=88200), "-o", tmp_path / "p.html", "--duration", "0:01")
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    for value in ("a.wav", "stub", "0s-1s", "44100 Hz", "WAV PCM_16"):
        assert value in text
    assert 'data-seconds="1.000"' in text


def test_an_existing_page_is_refused_before_the_work(run: StubCommand, song: WriteSong) -> None:
    path = song("a.wav", samples=5000)
    assert run("report", path).exit_code == 0
    result = run("report", path)
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert "--overwrite" in result.stderr
    assert run("report", path, "--overwrite").exit_code == 0


def test_separate_writes_the_page_next_to_the_stems(
    run: StubCommand, song: WriteSong, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run("separate", song("a.wav", samples=5000), "-o", out, "--report", "--json")
    assert json.loads(result.stdout)["report"] == str(out / "a_report.html")
    visible = [name for name in names(out) if not name.startswith(".")]
    assert visible == ["a_instrumental.wav", "a_report.html", "a_vocals.wav"]


def test_a_resumed_run_writes_a_page_that_is_missing(
    run: StubCommand, song: WriteSong, tmp_path: Path
) -> None:
    arguments = ("separate", song("a.wav", samples=5000), "-o", tmp_path / "out", "--resume")
    run(*arguments)
    assert run(*arguments, "--report").exit_code == 0
    assert (tmp_path / "out/a_report.html").exists()


def test_a_mix_and_an_excerpt_have_a_page_with_all_stems(
    run: StubCommand, song: WriteSong, tmp_path: Path
) -> None:
    path = song("a.wav", samples=88200)
    options = ("--mix", "vocals=-6,instrumental=0", "--duration", 1, "--report")
    result = run("separate", path, "-o", tmp_path / "out", *options)
    mix, page = (Path(line) for line in result.stdout.splitlines())
    assert (mix.name, page.name) == ("a_mix_0s-1s.wav", "a_report_0s-1s.html")
    assert 'aria-label="instrumental"' in page.read_text(encoding="utf-8")


def test_standard_output_takes_no_page(run: StubCommand, song: WriteSong) -> None:
    result = run("separate", song(), "-o", "-", "--stem", "vocals", "--report")
    assert result.exit_code == 2
    assert "report must be off on standard output" in result.stderr
