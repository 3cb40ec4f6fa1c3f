"""Evaluation: one code for models, for other tools' files and for baselines."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from bsmamba2 import Manifest, Separator
from bsmamba2.errors import AudioError
from bsmamba2_network import BSMamba2
from bsmamba2_training import evaluation, results
from bsmamba2_training.baselines import oracle_mask, repetition
from bsmamba2_training.commands import evaluate
from bsmamba2_training.layout import songs
from bsmamba2_training.metrics import usdr_db
from support.engines import StubEngine, half


@pytest.fixture
def scored(pooled):
    systems = evaluation.baseline_estimators()
    return evaluation.evaluate(songs(pooled, "test"), systems, csdr=False)


def test_doing_nothing_is_the_mixture_in_both_stems(scored, pooled):
    mixture, vocals, instrumental = songs(pooled, "test")[0].stems()
    row = next(item for item in scored if item.system == "mixture")
    assert row.values["usdr vocals"] == pytest.approx(usdr_db(vocals, mixture))
    assert row.values["usdr instrumental"] == pytest.approx(usdr_db(instrumental, mixture))
    assert row.values["leakage"] == pytest.approx(0, abs=0.01)


def test_silence_scores_nothing_and_leaks_nothing(scored):
    row = next(item for item in scored if item.system == "silence")
    assert row.values["usdr vocals"] == pytest.approx(0, abs=0.01)
    assert row.values["leakage"] == -100


def test_scores_of_shape_are_left_out_for_an_estimate_that_has_none(hiss):
    music, none = hiss(2, 2), np.zeros((2, 88200))
    found = evaluation.score("song", "silence", music, (0.5 * music, 0.5 * music), (none, music))
    assert "usdr vocals" in found.values
    assert not {"csdr vocals", "sisdr vocals"} & found.values.keys()


def test_the_oracle_is_far_above_the_mixture(scored):
    table = evaluation.summarise(scored)
    assert table["oracle mask"]["usdr vocals"].improvement > 10


def test_the_old_method_takes_a_loop_for_the_music(tone, hiss):
    loop = np.tile(hiss(0.5, 2), (1, 12))
    voice = np.repeat(np.pad(tone(600, 1), (44100, 4 * 44100))[np.newaxis], 2, axis=0)
    estimate = repetition(loop + voice, voice)
    assert usdr_db(voice, estimate) > usdr_db(voice, loop + voice) + 6


def test_the_oracle_leaves_silence_silent(hiss):
    music = hiss(1, 2)
    assert np.abs(oracle_mask(music, np.zeros_like(music))).max() < 1e-6


def test_a_model_is_scored_by_what_separate_makes(pooled):
    engine = StubEngine(half, name="half", chunk=44100, n_fft=2048, hop=512)
    estimator = evaluation.model_estimator(Separator(engine), None)
    (song,) = songs(pooled, "test")
    mixture, vocals, _ = song.stems()
    found, rest = estimator(song, mixture, vocals)
    np.testing.assert_allclose(found, 0.5 * mixture, atol=1e-5)
    np.testing.assert_allclose(found + rest, mixture, atol=1e-5)


def test_a_stream_is_scored_with_its_latency(pooled, tmp_path):
    BSMamba2.untrained("tiny").save(tmp_path / "net.safetensors")
    arguments = [str(pooled), "-m", str(tmp_path / "net.safetensors"), "--device", "cpu"]
    arguments += ["--lookahead-ms", "100", "--no-csdr", "--no-baselines", "-o", str(tmp_path / "o")]
    run = CliRunner().invoke(evaluate, arguments, catch_exceptions=False)
    assert run.exit_code == 0
    protocol = json.loads((tmp_path / "o/scores.json").read_text())["protocol"]
    assert 200 < protocol["latency_ms"] < 400
    assert len(protocol["model_sha256"]) == 64


def test_a_model_without_vocals_is_refused():
    engine = StubEngine(half, stems=("drums",), residual=None)
    assert isinstance(engine.manifest, Manifest)
    with pytest.raises(AudioError, match="not vocals"):
        evaluation.model_estimator(Separator(engine), None)


def test_other_tools_files_are_scored_from_the_command_line(pooled, tmp_path):
    (song,) = songs(pooled, "test")
    (tmp_path / "tool").mkdir()
    shutil.copy(song.vocals.files[0], tmp_path / "tool" / f"{song.name}_vocals.wav")
    arguments = [str(pooled), "--estimates", str(tmp_path / "tool"), "-o", str(tmp_path / "out")]
    run = CliRunner().invoke(evaluate, [*arguments, "--no-csdr"], catch_exceptions=False)
    assert run.exit_code == 0
    document = json.loads((tmp_path / "out/scores.json").read_text())
    assert document["summary"]["tool"]["usdr vocals"]["median"] > 60
    assert document["protocol"]["songs"] == 1
    assert (tmp_path / "out/plot.png").stat().st_size > 1000
    assert len((tmp_path / "out/songs.csv").read_text().splitlines()) == 6


def test_a_missing_estimate_is_named(pooled, tmp_path):
    (song,) = songs(pooled, "test")
    mixture, vocals, _ = song.stems()
    with pytest.raises(AudioError, match=r"song/vocals\.wav; it does not"):
        evaluation.files_estimator(tmp_path)(song, mixture, vocals)


def test_an_estimate_of_another_rate_is_brought_to_the_songs(pooled, tmp_path):
    (song,) = songs(pooled, "test")
    mixture, vocals, _ = song.stems()
    (tmp_path / song.name).mkdir()
    soundfile.write(tmp_path / song.name / "vocals.wav", np.zeros((1000, 1)), 22050)
    found, rest = evaluation.files_estimator(tmp_path)(song, mixture, vocals)
    assert found.shape == mixture.shape
    np.testing.assert_array_equal(rest, mixture)


def test_the_interval_holds_the_median_and_narrows_to_it(scored):
    one = evaluation.summarise(scored)["mixture"]["usdr vocals"]
    assert one.low == one.median == one.high == one.mean


def test_the_table_names_the_improvement(scored):
    page = results.markdown(evaluation.summarise(scored))
    assert "oracle mask" in page.splitlines()[0]
    assert ", +" in page
