"""Songs with singers: only clear singing is kept, and doubtful stretches have no weight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bsmamba2.audio.array import Audio
from bsmamba2_training.layout import songs, training_pools
from bsmamba2_training.singers import join_singing, label, write_held_out_songs, write_labelled_song

RATE = 44100
Song = tuple[Audio, Audio]


@pytest.fixture
def song(tone: Callable[[float, float], Audio], hiss: Callable[..., Audio]) -> Song:
    """A mixture and a teacher's vocals: 2 s of voice, 2 s of doubt, and 2 s without a voice."""
    level = np.repeat([1.0, 0.06, 0.001], 2 * RATE).astype(np.float32)
    vocals = np.stack([level * tone(440, 6)] * 2)
    return vocals + 0.3 * hiss(6, 2), vocals


def test_a_clear_voice_is_kept_and_all_else_is_exactly_zero(song: Song) -> None:
    gated, _ = label(*song)
    np.testing.assert_array_equal(gated[:, RATE : RATE + 20000], song[1][:, RATE : RATE + 20000])
    assert not gated[:, 3 * RATE :].any()


def test_only_a_clear_voice_and_its_clear_absence_have_weight(song: Song) -> None:
    _, weight = label(*song)
    assert weight[RATE] == weight[5 * RATE] == 1
    assert weight[3 * RATE] == 0
    assert set(np.unique(weight)) == {0, 1}


def test_a_voice_of_less_than_half_a_second_is_taken_for_a_drum(hiss: Callable[..., Audio]) -> None:
    vocals = np.zeros((2, 3 * RATE), np.float32)
    vocals[:, RATE : RATE + 2000] = 0.3
    gated, weight = label(vocals + 0.3 * hiss(3, 2), vocals)
    assert not gated.any()
    assert weight[RATE + 1000] == 0


def test_a_silent_song_is_certainly_unsung() -> None:
    silence = np.zeros((2, RATE), np.float32)
    gated, weight = label(silence, silence)
    assert not gated.any()
    assert weight.all()


def test_singing_is_joined_with_short_gaps_at_the_level_of_other_voices() -> None:
    gated = np.zeros((2, 10 * RATE), np.float32)
    gated[:, RATE : 2 * RATE] = gated[:, 8 * RATE : 9 * RATE] = 0.3
    joined = join_singing(gated)
    assert 2 * RATE < joined.shape[1] < 2.5 * RATE
    assert np.sqrt(np.square(joined[joined != 0]).mean()) == pytest.approx(0.1)
    assert join_singing(np.zeros((2, 9), np.float32)).shape == (2, 0)


def test_a_labelled_song_and_its_singer_become_pools_for_training(
    pooled: Path, song: Song, tmp_path: Path
) -> None:
    train = tmp_path / "train"
    train.mkdir()
    for name in ("vocals", "instrumental"):
        (train / name).symlink_to(pooled / "train" / name)
    write_labelled_song(*song, train / "songs/a", train / "singers/a.wav")
    pools = training_pools(tmp_path)
    assert [track.files[0].name for track in pools.singers] == ["a.wav"]
    (labelled,) = pools.songs
    mixture, vocals = labelled.mixture.read(), labelled.vocals.read()
    assert np.abs(mixture - song[0] * np.abs(mixture).max() / np.abs(song[0]).max()).max() < 1e-3
    assert vocals[:, :RATE].any()
    assert labelled.weight.read()[0, 3 * RATE] == 0


def test_songs_of_a_held_out_singer_are_exact_sums_over_other_music(
    pooled: Path, song: Song, tmp_path: Path
) -> None:
    music = pooled / "train/instrumental/b.wav"
    random = np.random.default_rng(0)
    write_held_out_songs(*song, [music, music], tmp_path / "singers/name", random)
    (written,) = songs(tmp_path, "singers")
    mixture, vocals, instrumental = written.stems()
    np.testing.assert_array_equal(mixture, vocals + instrumental)
    assert vocals[:, :RATE].any()
    assert not vocals[:, 3 * RATE :].any()
    assert soundfile.info(tmp_path / "singers/name/vocals.wav").duration == 20
