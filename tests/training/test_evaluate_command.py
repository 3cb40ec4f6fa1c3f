"""``bsmamba2 evaluate``: what a user types, and what a user did wrong."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from bsmamba2.cli import main
from bsmamba2_network import BSMamba2
from bsmamba2_training.layout import songs


def invoke(*arguments):
    quick = ("--no-csdr", "--jobs", "1")
    return CliRunner().invoke(main, ["evaluate", *quick, *map(str, arguments)])


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    BSMamba2.untrained("tiny").save(path)
    return path


@pytest.fixture
def stems(pooled, tmp_path):
    """``stems(name)``: a folder with the true vocals, as another tool might leave them."""
    (song,) = songs(pooled, "test")

    def make(name):
        (tmp_path / name).mkdir()
        shutil.copy(song.vocals.files[0], tmp_path / name / f"{song.name}_vocals.wav")
        return tmp_path / name

    return make


def test_other_tools_files_are_scored(pooled, stems, tmp_path):
    run = invoke(pooled, "--estimates", stems("tool"), "-o", tmp_path / "out")
    assert run.exit_code == 0, run.output
    document = json.loads((tmp_path / "out/scores.json").read_text())
    assert document["summary"]["tool"]["usdr vocals"]["median"] > 60
    assert document["protocol"]["songs"] == 1
    assert (tmp_path / "out/plot.png").stat().st_size > 1000
    assert len((tmp_path / "out/songs.csv").read_text().splitlines()) == 6


def test_without_a_folder_the_table_is_printed_with_its_protocol(pooled, stems, monkeypatch):
    monkeypatch.chdir(stems("tool"))
    run = invoke(pooled, "--estimates", ".", "--no-baselines")
    assert run.exit_code == 0, run.output
    assert "| tool |" in run.stdout
    assert "system tool; dataset pooled" in run.stdout
    assert "bootstrap over songs" in run.stdout


def test_a_folder_named_like_a_baseline_does_not_stand_for_it(pooled, stems):
    run = invoke(pooled, "--estimates", stems("mixture"))
    assert "| mixture | silence |" in run.stdout
    assert "| mixture (estimates) |" in run.stdout


def test_a_model_is_scored_by_its_chunks(pooled, net):
    run = invoke(pooled, "-m", net, "--device", "cpu", "--no-baselines", "--overlap", 0.25)
    assert run.exit_code == 0, run.output
    assert "overlap 0.25;" in run.stdout
    assert "lookahead" not in run.stdout


def test_a_stream_is_scored_with_its_block_lookahead_and_latency(pooled, net, tmp_path):
    options = ("--lookahead-ms", 100, "--block-ms", 50, "--no-baselines", "-o", tmp_path)
    run = invoke(pooled, "-m", net, "--device", "cpu", *options)
    assert run.exit_code == 0, run.output
    protocol = json.loads((tmp_path / "scores.json").read_text())["protocol"]
    assert (protocol["block_ms"], protocol["lookahead_ms"]) == (50, 100)
    assert 150 < protocol["latency_ms"] < 300
    assert not {"chunk_s", "overlap"} & protocol.keys()
    assert len(protocol["model_sha256"]) == 64


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--block-ms", 50], "--block-ms belongs to a stream: give --lookahead-ms with it"),
        (["--overlap", 0.5, "--lookahead-ms", 50], "--overlap belongs to whole songs"),
        (["--estimates", ".", "--device", "auto"], "only a model takes --device"),
        (
            ["--estimates", ".", "--overlap", 0, "--block-ms", 9],
            "only a model takes --overlap, --block-ms",
        ),
        (["--estimates", ".", "--lookahead-ms", 9], "only a model takes --lookahead-ms"),
        (["--estimates", ".", "-m", "small"], "not both"),
        (["--songs", 0], "'--songs': 0 is not in the range"),
        (["--jobs", 0], "'--jobs': 0 is not in the range"),
    ],
)
def test_options_that_do_not_go_together_are_refused(pooled, options, sentence):
    run = invoke(pooled, *options)
    assert run.exit_code == 2
    assert sentence in run.stderr


def test_a_file_that_is_no_audio_is_the_users_to_mend(pooled, stems):
    tool = stems("tool")
    (tool / "song_vocals.wav").write_text("no audio")
    run = invoke(pooled, "--estimates", tool, "--no-baselines")
    assert run.exit_code == 2
    assert "song_vocals.wav is not audio" in run.stderr
