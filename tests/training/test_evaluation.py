"""Evaluation: one code for models, for other tools' files and for baselines."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from bsmamba2 import Separator
from bsmamba2.errors import AudioError, ModelError
from bsmamba2_training import evaluation, results
from bsmamba2_training.baselines import oracle_mask, repetition
from bsmamba2_training.layout import songs
from bsmamba2_training.metrics import usdr_db
from support.engines import StubEngine, half


@pytest.fixture(scope="module")
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


def test_a_model_without_vocals_is_refused():
    separator = Separator(StubEngine(half, stems=("drums",), residual=None))
    with pytest.raises(ModelError, match="it makes drums"):
        evaluation.model_estimator(separator, None)
    with pytest.raises(ModelError, match="it makes drums"):
        evaluation.stream_estimator(separator, None, 100)


@pytest.fixture
def other_tool(pooled, tmp_path):
    """``other_tool(vocals, rate)``: what is made of another tool's stem of the song of 3 s."""
    (song,) = songs(pooled, "test")
    mixture, vocals, _ = song.stems()
    (tmp_path / song.name).mkdir()

    def read(estimate, rate):
        soundfile.write(tmp_path / song.name / "vocals.wav", estimate, rate, "FLOAT")
        return evaluation.files_estimator(tmp_path)(song, mixture, vocals)

    return read


def test_a_missing_estimate_is_named(pooled, tmp_path):
    (song,) = songs(pooled, "test")
    mixture, vocals, _ = song.stems()
    with pytest.raises(AudioError, match=r"song/vocals\.wav; it does not"):
        evaluation.files_estimator(tmp_path)(song, mixture, vocals)


@pytest.mark.parametrize("samples", [3 * 22050 - 2000, 3 * 22050, 3 * 22050 + 2000])
def test_an_estimate_of_another_rate_is_brought_to_the_songs(other_tool, samples):
    found, rest = other_tool(np.zeros((samples, 1)), 22050)
    assert found.shape == rest.shape == (2, 3 * 44100)
    assert not found.any()
    assert rest.any()


@pytest.mark.parametrize("seconds", [2.8, 3.2])
def test_an_estimate_of_another_length_is_refused_with_both(other_tool, seconds):
    with pytest.raises(AudioError, match=rf"vocals\.wav .* 3\.00 s, .* it has {seconds}0 s"):
        other_tool(np.zeros(int(44100 * seconds)), 44100)


def test_an_estimate_that_is_not_finite_is_named(other_tool):
    silence = np.zeros(3 * 44100)
    silence[100] = np.nan
    with pytest.raises(AudioError, match=r"song/vocals\.wav: audio must be finite"):
        other_tool(silence, 44100)


def test_a_baselines_name_stays_the_baselines():
    assert evaluation.system_name("mixture", "model") == "mixture (model)"
    assert evaluation.system_name("small", "model") == "small"


def test_one_song_has_no_interval(scored):
    one = evaluation.summarise(scored)["mixture"]["usdr vocals"]
    assert one.low == one.median == one.high == one.mean


ELEVEN = [*range(10), 100]
"""Of eleven songs drawn anew, six are at most the second in 0.9% of draws, at most the third in
5.6%, so the median's interval of 95% begins at the third."""


def test_median_mean_and_interval_of_eleven_songs():
    scores = [evaluation.Score(f"{i}", "x", {"usdr vocals": i}) for i in ELEVEN]
    scores += [evaluation.Score(f"{i}", "mixture", {"usdr vocals": 2 * i}) for i in ELEVEN]
    one = evaluation.summarise(scores)["x"]["usdr vocals"]
    assert (one.low, one.median, one.high) == (2, 5, 8)
    assert (one.mean, one.improvement) == (pytest.approx(145 / 11), -5)
    assert (one.songs, one.values) == (11, 11)


def test_stretches_of_one_song_do_not_count_as_independent():
    scores = [evaluation.Score(f"{i}", "x", {}, {"1-2 s": 50 * [float(i)]}) for i in ELEVEN]
    one = evaluation.summarise(scores)["x"]["voice 1-2 s"]
    assert (one.low, one.median, one.high) == (2, 5, 8)
    assert (one.songs, one.values) == (11, 550)


def test_the_median_of_an_even_number_lies_between_two():
    scores = [evaluation.Score("a", "x", {}, {"1-2 s": [1.0, 2.0, 4.0, 8.0]})]
    one = evaluation.summarise(scores)["x"]["voice 1-2 s"]
    assert one.low == one.median == one.high == 3


def test_a_song_weighs_by_its_stretches():
    voices = {"a": 9 * [1.0], "b": [7.0]}
    scores = [evaluation.Score(song, "x", {}, {"1-2 s": v}) for song, v in voices.items()]
    one = evaluation.summarise(scores)["x"]["voice 1-2 s"]
    # The median is 7 where b alone was drawn, in a quarter of draws.
    assert (one.low, one.median, one.high, one.songs) == (1, 1, 7, 2)


def test_a_cell_holds_median_mean_interval_and_improvement():
    one = evaluation.Summary(4, 4.5, 3, 5.25, songs=9, values=9, improvement=12)
    page = results.markdown({"x": {"usdr vocals": one}, "mixture": {"usdr vocals": one}})
    assert "| x | mixture |" in page.splitlines()[0]
    assert "4.00 (4.50) [3.00, 5.25], +12.00 | 4.00 (4.50) [3.00, 5.25] |" in page


def test_leakage_is_drawn_on_an_axis_of_its_own(scored):
    table = evaluation.summarise(scored)
    wide, narrow = results.plot(table).axes
    drawn = [bar.get_height() for bar in narrow.patches]
    assert drawn == [row["leakage"].median for row in table.values()]
    assert len(wide.patches) > len(drawn)
