"""``bsmamba2 library`` without Ray: its options, plans and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bsmamba2_cluster.commands import describe, library
from bsmamba2_cluster.run_report import RunSummary


def run(*arguments: object) -> Result:
    return CliRunner().invoke(library, [str(argument) for argument in arguments])


def test_a_plan_without_a_rate_says_how_to_measure_one(
    album: Path, tmp_path: Path, model: str
) -> None:
    result = run(album, "-o", tmp_path / "stems", "-m", model, "--plan")
    assert result.exit_code == 0, result.output
    assert "3 songs" in result.output
    assert "--limit 20" in result.output
    assert not (tmp_path / "stems").exists()


def test_a_plan_with_a_rate_and_a_price_states_hours_and_cost(
    album: Path, tmp_path: Path, model: str
) -> None:
    options = ("--plan", "--rate", 0.001, "--price", 90, "--workers", 2)
    result = run(album, "-o", tmp_path / "stems", "-m", model, *options)
    seconds = (9000 + 18000 + 27000) / 44100 * 1000
    assert "0.0x real time per worker, as stated" in result.output
    assert f"cost {seconds / 3600 * 90:,.2f}" in result.output
    assert "2 workers" in result.output


def test_the_progress_has_songs_audio_speed_failures_and_the_time_left() -> None:
    summary = RunSummary("1", "a", "b", songs=10, bytes=100, done=4, failed=1, set_aside=1)
    summary.done_bytes, summary.seconds, summary.audio_s, summary.already = 50, 60.0, 7200.0, 3
    assert describe(summary) == (
        "6 of 10 songs; 3 already done; 2.00 hours of audio; 120.0x real time; 1 failed; "
        "1 set aside; 1:00 left"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "s3://key:secret@music/stems"], "no credentials"),
        (["-o", "stems", "--template", "{artist}_{stem}.{ext}"], "no tags"),
        (["-o", "stems", "--stem", "drums"], "stem must be one of"),
        (["-o", "stems", "--overlap", "2"], "overlap"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(
    album: Path, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(album, *arguments)
    assert result.exit_code != 0
    assert message in str(result.exception)
    assert not (tmp_path / "stems").exists()
