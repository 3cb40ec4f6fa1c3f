"""Evaluation: the same code scores models, files of other tools, and baselines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.patches import Rectangle

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError, ModelError
from bsmamba2_training import evaluation, results
from bsmamba2_training.baselines import oracle_mask, repetition
from bsmamba2_training.layout import songs
from bsmamba2_training.metrics import LENGTHS, usdr_db
from support.engines import StubEngine, half

Tone = Callable[[float, float], Audio]
Hiss = Callable[..., Audio]
OtherTool = Callable[[Audio, int], tuple[Audio, Audio]]


@pytest.fixture(scope="module")
def scored(pooled: Path) -> list[evaluation.Score]:
    """Scores of the baselines on a song."""
    systems = evaluation.baseline_estimators()
    return evaluation.evaluate(songs(pooled, "test"), systems, csdr=False)


def test_the_mixture_baseline_uses_the_mixture_as_both_stems(
    scored: list[evaluation.Score], pooled: Path
) -> None:
    mixture, vocals, instrumental = songs(pooled, "test")[0].stems()
    row = next(item for item in scored if item.system == "mixture")
    assert row.values["usdr vocals"] == pytest.approx(usdr_db(vocals, mixture))
    assert row.values["usdr instrumental"] == pytest.approx(usdr_db(instrumental, mixture))
    assert row.values["leakage"] == pytest.approx(0, abs=0.01)


def test_silence_scores_zero_db_and_has_no_leakage(scored: list[evaluation.Score]) -> None:
    row = next(item for item in scored if item.system == "silence")
    assert row.values["usdr vocals"] == pytest.approx(0, abs=0.01)
    assert row.values["leakage"] == -100


def test_csdr_and_si_sdr_are_left_out_for_a_silent_estimate(hiss: Hiss) -> None:
    music, silence = hiss(2, 2), np.zeros((2, 88200), np.float32)
    scores = evaluation.score(
        "song", "silence", music, (0.5 * music, 0.5 * music), (silence, music)
    )
    assert "usdr vocals" in scores.values
    assert not {"csdr vocals", "sisdr vocals"} & scores.values.keys()


def test_the_oracle_is_far_above_the_mixture(scored: list[evaluation.Score]) -> None:
    improvement = evaluation.summarise(scored)["oracle mask"]["usdr vocals"].improvement
    assert improvement is not None
    assert improvement > 10


def test_repet_sim_treats_a_loop_as_the_music(tone: Tone, hiss: Hiss) -> None:
    loop = np.tile(hiss(0.5, 2), (1, 12))
    voice = np.repeat(np.pad(tone(600, 1), (44100, 4 * 44100))[np.newaxis], 2, axis=0)
    estimate = repetition(loop + voice, voice)
    assert usdr_db(voice, estimate) > usdr_db(voice, loop + voice) + 6


def test_the_oracle_keeps_silence_silent(hiss: Hiss) -> None:
    music = hiss(1, 2)
    assert np.abs(oracle_mask(music, np.zeros_like(music))).max() < 1e-6


def test_a_model_is_scored_on_the_output_of_its_separator(pooled: Path) -> None:
    engine = StubEngine(half, name="half", chunk=44100, n_fft=2048, hop=512)
    estimator = evaluation.model_estimator(Separator(engine), None)
    (song,) = songs(pooled, "test")
    mixture, vocals, _ = song.stems()
    estimate, rest = estimator(song, mixture, vocals)
    np.testing.assert_allclose(estimate, 0.5 * mixture, atol=1e-5)
    np.testing.assert_allclose(estimate + rest, mixture, atol=1e-5)


def test_a_model_without_vocals_is_refused() -> None:
    separator = Separator(StubEngine(half, stems=("drums",), residual=None))
    with pytest.raises(ModelError, match="must output vocals; got drums"):
        evaluation.model_estimator(separator, None)
    with pytest.raises(ModelError, match="must output vocals; got drums"):
        evaluation.stream_estimator(separator, None, 100)


@pytest.fixture
def other_tool(pooled: Path, tmp_path: Path) -> OtherTool:
    """``other_tool(vocals, rate)``: the estimates read from another tool's stem of a 3 s song."""
    (song,) = songs(pooled, "test")
    mixture, vocals, _ = song.stems()
    (tmp_path / song.name).mkdir()

    def read(estimate: Audio, rate: int) -> tuple[Audio, Audio]:
        soundfile.write(tmp_path / song.name / "vocals.wav", estimate, rate, "FLOAT")
        return evaluation.files_estimator(tmp_path)(song, mixture, vocals)

    return read


def test_a_missing_estimate_is_named(pooled: Path, tmp_path: Path) -> None:
    (song,) = songs(pooled, "test")
    mixture, vocals, _ = song.stems()
    with pytest.raises(AudioError, match=r"must contain song/vocals\.wav .*; got .* without them"):
        evaluation.files_estimator(tmp_path)(song, mixture, vocals)


@pytest.mark.parametrize("samples", [3 * 22050 - 2000, 3 * 22050, 3 * 22050 + 2000])
def test_an_estimate_at_another_rate_is_resampled_to_the_length_of_the_song(
    other_tool: OtherTool, samples: int
) -> None:
    estimate, rest = other_tool(np.zeros((samples, 1), np.float32), 22050)
    assert estimate.shape == rest.shape == (2, 3 * 44100)
    assert not estimate.any()
    assert rest.any()


@pytest.mark.parametrize("seconds", [2.8, 3.2])
def test_an_estimate_of_another_length_is_refused_with_both_lengths(
    other_tool: OtherTool, seconds: float
) -> None:
    with pytest.raises(AudioError, match=rf"vocals\.wav .* 3\.00 ± 0\.1 s; got {seconds}0 s"):
        other_tool(np.zeros(int(44100 * seconds), np.float32), 44100)


def test_an_estimate_that_is_not_finite_is_named(other_tool: OtherTool) -> None:
    silence = np.zeros(3 * 44100, np.float32)
    silence[100] = np.nan
    with pytest.raises(AudioError, match=r"song/vocals\.wav: audio must be finite"):
        other_tool(silence, 44100)


def test_a_model_named_like_a_baseline_gets_a_distinct_name() -> None:
    assert evaluation.system_name("mixture", "model") == "mixture (model)"
    assert evaluation.system_name("small", "model") == "small"
    assert evaluation.system_name("small", "model", ["small", "small (2)"]) == "small (3)"


def test_the_interval_of_one_song_has_no_width(scored: list[evaluation.Score]) -> None:
    one = evaluation.summarise(scored)["mixture"]["usdr vocals"]
    assert one.low == one.median == one.high == one.mean


ELEVEN = [*range(10), 100]
"""Values of eleven songs. When eleven are drawn with replacement, the median is at most the second
value in 0.9% of draws and at most the third in 5.6%, so the median's 95% interval starts at the
third."""


def test_median_mean_and_interval_of_eleven_songs() -> None:
    scores = [evaluation.Score(f"{i}", "x", {"usdr vocals": i}) for i in ELEVEN]
    scores += [evaluation.Score(f"{i}", "mixture", {"usdr vocals": 2 * i}) for i in ELEVEN]
    one = evaluation.summarise(scores)["x"]["usdr vocals"]
    assert (one.low, one.median, one.high) == (2, 5, 8)
    assert one.mean == pytest.approx(145 / 11)
    assert one.improvement == -5
    assert (one.songs, one.values) == (11, 11)


def test_stretches_of_one_song_do_not_count_as_independent() -> None:
    scores = [evaluation.Score(f"{i}", "x", {}, {"1-2 s": 50 * [float(i)]}) for i in ELEVEN]
    one = evaluation.summarise(scores)["x"]["voice 1-2 s"]
    assert (one.low, one.median, one.high) == (2, 5, 8)
    assert (one.songs, one.values) == (11, 550)


def test_the_median_of_an_even_number_of_values_is_the_mean_of_the_middle_two() -> None:
    scores = [evaluation.Score("a", "x", {}, {"1-2 s": [1.0, 2.0, 4.0, 8.0]})]
    one = evaluation.summarise(scores)["x"]["voice 1-2 s"]
    assert one.low == one.median == one.high == 3


def test_the_weight_of_a_song_is_its_number_of_stretches() -> None:
    voices = {"a": 9 * [1.0], "b": [7.0]}
    scores = [evaluation.Score(song, "x", {}, {"1-2 s": v}) for song, v in voices.items()]
    one = evaluation.summarise(scores)["x"]["voice 1-2 s"]
    # The median is 7 if only b is drawn, which happens in a quarter of the draws.
    assert (one.low, one.median, one.high, one.songs) == (1, 1, 7, 2)


def test_a_cell_shows_median_mean_and_interval_but_no_improvement_over_the_mixture() -> None:
    one = evaluation.Summary(4, 4.5, 3, 5.25, songs=9, values=9, improvement=12)
    page = results.markdown({"x": {"usdr vocals": one}, "mixture": {"usdr vocals": one}})
    assert "| x | mixture |" in page.splitlines()[0]
    assert "| 4.00 (4.50) [3.00, 5.25] | 4.00 (4.50) [3.00, 5.25] |" in page


def test_the_level_of_the_voice_stands_directly_under_usdr(
    scored: list[evaluation.Score],
) -> None:
    rows = results.markdown(evaluation.summarise(scored)).splitlines()
    assert rows[2].startswith("| uSDR of the vocals, dB |")
    assert rows[3].startswith("| level of the voice in the vocals, dB | -0.01 (-0.01)")
    assert "| -100.00 (-100.00)" in rows[3]


def test_activity_is_plotted_by_length_with_the_absent_voice_on_its_own_axis(
    scored: list[evaluation.Score],
) -> None:
    table = evaluation.summarise(scored)
    wide, narrow = results.activity_plot(table).axes
    known = [length for length in LENGTHS if any(f"voice {length}" in r for r in table.values())]
    assert [text.get_text() for text in wide.get_xticklabels()] == known
    assert [text.get_text() for text in narrow.get_xticklabels()] == ["absent"]
    heights = [bar.get_height() for bar in wide.patches if isinstance(bar, Rectangle)]
    assert heights == [
        row[name].median for row in table.values() for name in row if name.startswith("voice")
    ]


def test_leakage_is_plotted_on_its_own_axis(scored: list[evaluation.Score]) -> None:
    table = evaluation.summarise(scored)
    wide, narrow = results.plot(table).axes
    heights = [bar.get_height() for bar in narrow.patches if isinstance(bar, Rectangle)]
    assert heights == [row["leakage"].median for row in table.values()]
    assert len(wide.patches) > len(narrow.patches) == len(heights)
