"""``bsmamba2 evaluate``: scores from the command line, and errors for wrong options."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bsmamba2.cli import main
from bsmamba2_network import BSMamba2
from bsmamba2_training.layout import songs


def invoke(*arguments: object) -> Result:
    quick = ("--no-csdr", "--jobs", "1")
    return CliRunner().invoke(main, ["evaluate", *quick, *map(str, arguments)])


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained network."""
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    BSMamba2.untrained("tiny").save(path)
    return path


@pytest.fixture
def stems(pooled: Path, tmp_path: Path) -> Callable[[str], Path]:
    """``stems(name)``: a folder with the true vocals, named as another tool might name them."""
    (song,) = songs(pooled, "test")

    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        shutil.copy(song.vocals.files[0], tmp_path / name / f"{song.name}_vocals.wav")
        return tmp_path / name

    return make


def test_files_of_another_tool_are_scored(
    pooled: Path, stems: Callable[[str], Path], tmp_path: Path
) -> None:
    run = invoke(pooled, "--estimates", stems("tool"), "-o", tmp_path / "out")
    assert run.exit_code == 0, run.output
    document = json.loads((tmp_path / "out/scores.json").read_text())
    assert document["summary"]["tool"]["usdr vocals"]["median"] > 60
    assert document["protocol"]["songs"] == 1
    assert (tmp_path / "out/plot.png").stat().st_size > 1000
    assert len((tmp_path / "out/songs.csv").read_text().splitlines()) == 6


def test_without_an_output_folder_the_table_and_its_protocol_are_printed(
    pooled: Path, stems: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stems("tool"))
    run = invoke(pooled, "--estimates", ".", "--no-baselines")
    assert run.exit_code == 0, run.output
    assert "| tool |" in run.stdout
    assert "system tool; dataset pooled" in run.stdout
    assert "bootstrap over songs" in run.stdout


def test_a_folder_named_like_a_baseline_gets_a_distinct_name(
    pooled: Path, stems: Callable[[str], Path]
) -> None:
    run = invoke(pooled, "--estimates", stems("mixture"))
    assert "| mixture | silence |" in run.stdout
    assert "| mixture (estimates) |" in run.stdout


def test_a_model_is_scored_on_whole_songs_in_chunks(pooled: Path, net: Path) -> None:
    run = invoke(pooled, "-m", net, "--device", "cpu", "--no-baselines", "--overlap", 0.25)
    assert run.exit_code == 0, run.output
    assert "overlap 0.25;" in run.stdout
    assert "lookahead" not in run.stdout


def test_a_stream_is_scored_with_its_block_lookahead_and_latency(
    pooled: Path, net: Path, tmp_path: Path
) -> None:
    options = ("--lookahead-ms", 100, "--block-ms", 50, "--no-baselines", "-o", tmp_path)
    run = invoke(pooled, "-m", net, "--device", "cpu", *options)
    assert run.exit_code == 0, run.output
    protocol = json.loads((tmp_path / "scores.json").read_text())["protocol"]
    assert (protocol["block_ms"], protocol["lookahead_ms"]) == (50, 100)
    assert 150 < protocol["latency_ms"] < 300
    assert not {"chunk_s", "overlap"} & protocol.keys()
    assert len(protocol["model_sha256"]) == 64


def test_models_are_compared_on_the_same_songs_with_silence_next_to_them(
    pooled: Path, net: Path, tmp_path: Path
) -> None:
    (tmp_path / "twice.json").write_text(json.dumps({"ensemble": [str(net), str(net)]}))
    models = ("-m", net, "-m", net, "-m", tmp_path / "twice.json")
    run = invoke(pooled, *models, "--device", "cpu", "--json", "-o", tmp_path / "out")
    assert run.exit_code == 0, run.output
    document = json.loads(run.stdout)
    assert document == json.loads((tmp_path / "out/scores.json").read_text())
    assert {"silence", "net", "net (2)", "twice"} <= document["summary"].keys()
    summary = document["summary"]
    assert summary["net"] == summary["net (2)"] == summary["twice"]
    assert [*document["protocol"]["systems"]] == ["net", "net (2)", "twice"]
    assert document["protocol"]["systems"]["twice"]["ensemble"] == ["net", "net"]
    assert (tmp_path / "out/activity.png").stat().st_size > 1000


def test_a_model_and_the_stems_of_other_tools_are_scored_side_by_side(
    pooled: Path, net: Path, stems: Callable[[str], Path]
) -> None:
    options = ("-m", net, "--device", "cpu", "--estimates", stems("one"), "--estimates")
    run = invoke(pooled, *options, stems("two"), "--json")
    assert run.exit_code == 0, run.output
    summary = json.loads(run.stdout)["summary"]
    assert {"mixture", "silence", "one", "two", "net"} <= summary.keys()
    assert summary["one"]["level"]["median"] == pytest.approx(0, abs=0.01)
    assert summary["silence"]["level"]["median"] == -100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--block-ms", 50], "--block-ms applies only to a stream: add --lookahead-ms"),
        (["--overlap", 0.5, "--lookahead-ms", 50], "--overlap applies only to whole songs"),
        (["--estimates", ".", "--device", "auto"], "only a model accepts --device"),
        (
            ["--estimates", ".", "--overlap", 0, "--block-ms", 9],
            "only a model accepts --overlap, --block-ms",
        ),
        (["--estimates", ".", "--lookahead-ms", 9], "only a model accepts --lookahead-ms"),
        (["--songs", 0], "'--songs': 0 is not in the range"),
        (["--jobs", 0], "'--jobs': 0 is not in the range"),
    ],
)
def test_invalid_and_conflicting_options_are_refused(
    pooled: Path, options: list[object], message: str
) -> None:
    run = invoke(pooled, *options)
    assert run.exit_code == 2
    assert message in run.stderr


def test_a_stem_that_is_not_audio_is_reported_as_a_users_error(
    pooled: Path, stems: Callable[[str], Path]
) -> None:
    tool = stems("tool")
    (tool / "song_vocals.wav").write_text("no audio")
    run = invoke(pooled, "--estimates", tool, "--no-baselines")
    assert run.exit_code == 2
    assert "song_vocals.wav is not audio" in run.stderr
