"""Mixed training items: reproducible, within full scale, and augmented as requested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.audio.array import Audio
from bsmamba2_training import notes
from bsmamba2_training.layout import LabelledSong, Pools, Track, training_pools
from bsmamba2_training.mixing import Mixing, Mixtures
from bsmamba2_training.notes import play

MakeMixtures = Callable[..., Mixtures]

RATE = 44100
PLAIN = Mixing(
    silent=0, sparse=0, second_voice=0, varispeed=0, reverb=0, compressor=0, pan=0, low_pass=0
)


@pytest.fixture(scope="module")
def mixtures(pooled: Path) -> MakeMixtures:
    """``mixtures(seed, seconds, mixing)``: items of the pooled data set."""
    pools = training_pools(pooled)

    def make(seed: int = 0, seconds: float = 1.0, mixing: Mixing | None = None) -> Mixtures:
        return Mixtures(pools, int(RATE * seconds), seed, mixing)

    return make


def rms_db(audio: Audio) -> float:
    return float(10 * np.log10(np.square(audio).mean()))


def test_an_item_depends_only_on_the_seed_and_its_number(mixtures: MakeMixtures) -> None:
    first = mixtures(seed=3)[17]
    again, other_item, other_seed = mixtures(seed=3)[17], mixtures(seed=3)[18], mixtures(seed=4)[17]
    np.testing.assert_array_equal(first.mixture, again.mixture)
    np.testing.assert_array_equal(first.vocals, again.vocals)
    assert not np.array_equal(first.mixture, other_item.mixture)
    assert not np.array_equal(first.mixture, other_seed.mixture)


@given(item=st.integers(0, 10_000))
def test_every_item_is_finite_and_within_full_scale(mixtures: MakeMixtures, item: int) -> None:
    mixture, vocals, known = mixtures()[item]
    assert known.shape == (1, RATE)
    assert mixture.shape == vocals.shape == (2, RATE)
    assert mixture.dtype == vocals.dtype == np.float32
    assert np.isfinite(mixture).all()
    assert np.abs(mixture).max() <= 1.0001


def test_the_instruments_of_songs_are_silenced_independently(
    tmp_path: Path, tone: Callable[[float, float], Audio]
) -> None:
    for stem, hz in (("vocals", 200), ("drums", 1000), ("bass", 5000)):
        path = tmp_path / "train/song" / f"{stem}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(hz, 1), RATE, "FLOAT")
    mixing = replace(PLAIN, silent=0.5, voice_db=None)
    items = Mixtures(training_pools(tmp_path), RATE // 10, 0, mixing)
    sounding = [np.abs(np.fft.rfft(items[item][0][0]))[[20, 100, 500]] > 1 for item in range(40)]
    assert len({tuple(stems) for stems in sounding}) == 8


def test_a_silent_item_is_exactly_silent(mixtures: MakeMixtures) -> None:
    dataset = mixtures(mixing=replace(PLAIN, silent=1.0))
    assert not dataset[0].mixture.any()


def test_a_sparse_voice_sounds_for_at_most_two_seconds(mixtures: MakeMixtures) -> None:
    vocals = mixtures(seconds=3.5, mixing=replace(PLAIN, sparse=1.0))[0].vocals
    assert 0.9 * RATE < np.count_nonzero(vocals[0]) <= 2 * RATE


def test_the_level_of_the_voice_over_the_music_is_the_level_drawn(mixtures: MakeMixtures) -> None:
    mixture, vocals, _ = mixtures(mixing=replace(PLAIN, voice_db=(-6.0, -6.0)))[0]
    assert rms_db(vocals) - rms_db(mixture - vocals) == pytest.approx(-6, abs=0.05)


def test_a_low_pass_removes_the_same_band_from_both_stems(mixtures: MakeMixtures) -> None:
    mixture, vocals, _ = mixtures(mixing=replace(PLAIN, low_pass=1.0))[0]
    high = np.abs(np.fft.rfft([mixture[0], vocals[0]]))[:, 15000:]
    assert high.max() < 1e-2


def test_a_reverberant_voice_is_gated_to_exact_zeros(mixtures: MakeMixtures) -> None:
    vocals = mixtures(mixing=replace(PLAIN, reverb=1.0, sparse=1.0), seconds=3.5)[1].vocals
    assert np.count_nonzero(vocals[0]) <= 2 * RATE


def test_second_music_and_equalisers_change_an_item_and_keep_it_finite(
    mixtures: MakeMixtures,
) -> None:
    plain = mixtures(mixing=PLAIN)[5]
    varied = mixtures(mixing=replace(PLAIN, second_music=1.0, equaliser=1.0))[5]
    assert np.isfinite(varied[0]).all()
    assert not np.allclose(varied[0], plain[0], atol=1e-3)


@pytest.fixture
def with_singers(pooled: Path, tmp_path: Path, tone: Callable[[float, float], Audio]) -> Pools:
    """The pooled data set, a singer at 1 kHz, and a song that is known in its second half."""
    files = {
        "singer": np.stack([tone(1000, 4)] * 2),
        "mixture": np.stack([2 * tone(3000, 4)] * 2),
        "vocals": np.stack([tone(3000, 4)] * 2),
        "weight": (np.arange(4 * RATE) >= 2 * RATE).astype(np.float32),
    }
    for name, audio in files.items():
        soundfile.write(tmp_path / f"{name}.wav", audio.T, RATE, "PCM_16")
    track = {name: Track((tmp_path / f"{name}.wav",)) for name in files}
    song = LabelledSong(track["mixture"], track["vocals"], track["weight"])
    return replace(training_pools(pooled), singers=(track["singer"],), songs=(song,))


def test_the_kinds_of_items_have_their_shares(with_singers: Pools) -> None:
    items = Mixtures(with_singers, RATE // 5, 0, replace(PLAIN, singers=0.5, songs=0.3))
    spectra = (np.abs(np.fft.rfft(items[number].vocals[0])) for number in range(100))
    strongest = [5 * int(np.argmax(spectrum)) for spectrum in spectra]
    assert 35 <= strongest.count(1000) <= 65
    assert 15 <= strongest.count(3000) <= 45
    assert 10 <= strongest.count(440) <= 30


def test_a_song_has_weight_where_its_vocals_are_known(with_singers: Pools) -> None:
    mixture, vocals, known = Mixtures(with_singers, 4 * RATE - 1, 0, replace(PLAIN, songs=1))[0]
    assert not known[0, :RATE].any()
    assert known[0, 3 * RATE :].all()
    np.testing.assert_allclose(mixture, 2 * vocals, atol=1e-3)


def test_singers_and_songs_end_below_11_khz(with_singers: Pools) -> None:
    mixing = replace(PLAIN, singers=0.5, songs=0.5, singers_low_pass=1.0)
    mixture = Mixtures(with_singers, RATE, 0, mixing)[1].mixture
    assert np.abs(np.fft.rfft(mixture))[:, 11600:].max() < 1e-2


def test_in_stereo_some_voices_are_one_sided_and_some_mixtures_mono(with_singers: Pools) -> None:
    items = Mixtures(with_singers, RATE // 5, 0, replace(PLAIN, stereo=1.0, singers=0.5))
    drawn = [items[number] for number in range(60)]
    assert any(sorted(channel.any() for channel in item.vocals) == [False, True] for item in drawn)
    assert any(not item.mixture.any(axis=1).all() for item in drawn)
    assert any(np.array_equal(*item.mixture) for item in drawn)
    assert all(np.isfinite(item.mixture).all() for item in drawn)


def test_reverberation_does_not_gate_away_a_voice_in_antiphase(with_singers: Pools) -> None:
    mixing = replace(PLAIN, stereo=1.0, reverb=1.0, singers=1.0)
    items = Mixtures(with_singers, RATE // 5, 0, mixing)
    silent = [number for number in range(60) if not items[number].vocals.any()]
    assert len(silent) <= 3  # antiphase in a mono mixture


@given(seed=st.integers(0, 2**32 - 1))
def test_notes_are_finite_and_have_the_requested_length(seed: int) -> None:
    music = play(np.random.default_rng(seed), RATE)
    assert music.shape == (2, RATE)
    assert np.isfinite(music).all()


def test_notes_are_audible_and_differ_from_draw_to_draw() -> None:
    draws = [play(np.random.default_rng(seed), RATE) for seed in range(40)]
    levels = [np.sqrt(np.square(music).mean()) for music in draws]
    assert np.mean(np.array(levels) > 0.01) > 0.9
    assert not any(np.array_equal(a, b) for a, b in pairwise(draws))


def test_a_part_sounds_at_its_pitch() -> None:
    a4, loudness, timbre = np.full(RATE, 69.0), np.ones(RATE), np.arange(1.0, 41.0) ** -2.0
    sound = notes._synthesise(np.random.default_rng(0), a4, loudness, timbre, interval=12)
    assert np.abs(np.argmax(np.abs(np.fft.rfft(sound))) - 880) <= 5
