"""The pages of quality: answers are checked, and every table shows silence and Spleeter."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.training import quality, real_songs, real_voices
from benchmarks.training.real_voices import (
    CENTRE,
    HARD_LEFT,
    MIXTURE,
    ONE_CHANNEL,
    ORACLE,
    PLACES,
    SILENCE,
    TEACHER,
    Measured,
    RealVoices,
    measure,
    over_music,
)
from benchmarks.training.spleeter import write_estimates
from bsmamba2.audio.array import Audio
from bsmamba2_training.evaluation import LEAKAGE, LEVEL, Summary, files_estimator
from bsmamba2_training.layout import songs

Tone = Callable[[float, float], Audio]
Hiss = Callable[..., Audio]
SYSTEMS = (MIXTURE, SILENCE, ORACLE, TEACHER, "model")


def found(*, vocals: float = 6, level: float = -2) -> RealVoices:
    """The same figures for every system, phrase and place."""
    one = Measured(vocals, level, 10)
    places = dict.fromkeys((*PLACES, ONE_CHANNEL), one)
    return RealVoices(
        dict.fromkeys(SYSTEMS, one),
        {system: {"la": one} for system in SYSTEMS},
        dict.fromkeys((SILENCE, TEACHER, "model"), places),
        {"la": 2.0},
    )


def summaries(**medians: float) -> dict[str, Summary]:
    return {
        name: Summary(value, value, value, value, songs=1, values=1, improvement=9)
        for name, value in medians.items()
    }


GOOD = summaries(**{"usdr vocals": 5.1, "voice 1-2 s": 4.6, LEAKAGE: -31, LEVEL: -2})


def reached(voices: RealVoices, songs: dict[str, Summary] = GOOD) -> list[str]:
    """The goals that are not reached."""
    rows = quality.goals(voices, "model", songs, GOOD, (3.0, 2.8))
    return [row for row in rows if not row.endswith("| yes |")]


def test_a_mixture_and_silence_score_what_they_must(tone: Tone, hiss: Hiss) -> None:
    vocals, music = np.stack([tone(440, 1)] * 2), hiss(1, 2)
    mixture = measure(lambda mixture, _: mixture, vocals, music)
    assert mixture.vocals == pytest.approx(-mixture.accompaniment, abs=0.01)
    assert mixture.level == pytest.approx(0, abs=0.1)
    silence = measure(lambda mixture, _: np.zeros_like(mixture), vocals, music)
    assert (silence.vocals, silence.level) == (0, -100)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_voice_is_as_loud_as_the_music_wherever_it_sounds(
    tone: Tone, hiss: Hiss, place: tuple[float, float]
) -> None:
    vocals, music = over_music(tone(440, 1), hiss(2, 2), place)
    assert np.square(vocals).sum() == pytest.approx(np.square(music).sum(), rel=1e-3)
    assert vocals.shape == music.shape


def test_a_mixture_on_one_channel_is_silent_on_the_other(tone: Tone, hiss: Hiss) -> None:
    silent: list[int] = []

    def count_silent(mixture: Audio, vocals: Audio) -> Audio:
        silent.append(sum(not channel.any() for channel in mixture))
        return vocals

    places = dict(real_voices.measure_places(count_silent, [tone(440, 1)], hiss(1, 2)))
    assert [*places] == [*PLACES, ONE_CHANNEL]
    assert silent == [0] * len(PLACES) + [1]


@pytest.mark.parametrize("name", [MIXTURE, SILENCE, TEACHER])
def test_a_wrong_answer_ends_the_benchmark(name: str) -> None:
    right, _ = real_voices.KNOWN_DB[name]
    real_voices.check(name, Measured(right, 0, 0))
    with pytest.raises(SystemExit, match=f"{name} must score"):
        real_voices.check(name, Measured(right + 1, 0, 0))


def test_every_table_shows_silence_and_spleeter_with_the_level_of_the_voice() -> None:
    tables = real_voices.page(found(), "").split("\n\n|")[1:]
    assert len(tables) == 3
    for table in tables:
        assert SILENCE in table
        assert TEACHER in table
        assert "level" in table


def test_a_model_that_reaches_every_goal_has_only_yes() -> None:
    assert reached(found()) == []


def test_silence_reaches_no_goal_for_voices() -> None:
    silent = summaries(**{"usdr vocals": 0, "voice 1-2 s": 0, LEAKAGE: -100, LEVEL: -100})
    missed = reached(found(vocals=0, level=-100), silent)
    assert sum("vocals" in row or "phrases" in row or "voices" in row for row in missed) == 6


def test_a_score_that_a_model_does_not_have_reaches_no_goal() -> None:
    assert len(reached(found(), {})) == 4


def test_the_loss_by_place_is_against_the_centre() -> None:
    places = {CENTRE: Measured(6, 0, 0), HARD_LEFT: Measured(2, 0, 0)}
    assert real_voices.lost_by_place(places) == {HARD_LEFT: 4}


def test_the_table_of_the_first_page_has_real_voices_first_and_no_improvement() -> None:
    table = quality.readme_table(found(), dict.fromkeys(SYSTEMS, GOOD), "model", "conditions")
    head, _, *rows = table.splitlines()[: 2 + len(SYSTEMS)]
    assert head.startswith("| dB | real song | level | sung phrases | level | synthetic songs |")
    assert rows[-1] == "| **model** | 6.0 | -2.0 | 6.0 | -2.0 | 5.1 | -2.0 | -31.0 |"
    assert "over the mixture" not in table


def test_vocals_of_the_teacher_are_estimates_for_evaluate(pooled: Path, tmp_path: Path) -> None:
    (song,) = songs(pooled, "test")
    mixture, vocals, _ = song.stems()
    write_estimates([song], tmp_path, lambda mixture: 0.5 * mixture)
    estimate, rest = files_estimator(tmp_path)(song, mixture, vocals)
    np.testing.assert_allclose(estimate, 0.5 * mixture, atol=1e-6)
    np.testing.assert_allclose(estimate + rest, mixture, atol=1e-6)


def test_the_previous_weights_come_from_the_history_or_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert real_songs.previous(tmp_path, "model.ckpt") == "model.ckpt"
    failed = subprocess.CompletedProcess([], 128, b"", b"")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match="name a model with --before"):
        real_songs.previous(tmp_path, None)
