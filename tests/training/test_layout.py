"""Layouts of data sets on disk: MUSDB18-HQ, pools, and folders of songs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError
from bsmamba2_training.layout import songs, training_pools

Tone = Callable[[float, float], Audio]
Hiss = Callable[..., Audio]

RATE = 44100


def write(path: Path, audio: Audio, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio.T, rate, "FLOAT")


@pytest.fixture
def musdb(tmp_path: Path, hiss: Hiss) -> Path:
    """A small data set in the layout of MUSDB18-HQ, with one of its validation songs."""
    for seed, name in enumerate(("A Song", "Young Griffo - Pennies")):
        for stem in ("vocals", "drums", "bass", "other"):
            write(tmp_path / "train" / name / f"{stem}.wav", hiss(0.1, 2, seed=seed))
    for stem in ("mixture", "vocals", "drums", "bass", "other"):
        write(tmp_path / "test" / "B" / f"{stem}.wav", hiss(0.1, 2))
    return tmp_path


def test_the_validation_songs_of_musdb_are_not_trained_on(musdb: Path) -> None:
    pools = training_pools(musdb)
    assert [track.files[0].parent.name for track in pools.vocals] == ["A Song"]
    assert pools.has_own_levels
    assert [song.name for song in songs(musdb, "valid")] == ["Young Griffo - Pennies"]


def test_each_instrument_of_musdb_is_a_separate_pool(musdb: Path) -> None:
    instruments = training_pools(musdb).instruments
    names = [[track.files[0].stem for track in pool] for pool in instruments]
    assert names == [["bass"], ["drums"], ["other"]]


@pytest.mark.parametrize("name", ["instrumental", "accompaniment", "no_vocals"])
def test_an_instrumental_is_not_added_to_its_own_parts(musdb: Path, hiss: Hiss, name: str) -> None:
    write(musdb / "test" / "B" / f"{name}.wav", 3 * hiss(0.1, 2))
    _, _, instrumental = songs(musdb, "test")[0].stems()
    np.testing.assert_allclose(instrumental, 3 * hiss(0.1, 2), atol=1e-6)


def test_the_instrumental_of_musdb_is_the_sum_of_the_other_stems(musdb: Path, hiss: Hiss) -> None:
    mixture, vocals, instrumental = songs(musdb, "test")[0].stems()
    np.testing.assert_allclose(instrumental, 3 * hiss(0.1, 2), atol=1e-6)
    np.testing.assert_allclose(mixture, vocals, atol=1e-6)


def test_any_folder_of_mixtures_and_vocals_is_a_test_set(tmp_path: Path, hiss: Hiss) -> None:
    write(tmp_path / "x" / "mixture.wav", 3 * hiss(0.1, 2))
    write(tmp_path / "x" / "vocals.wav", hiss(0.1, 2))
    (song,) = songs(tmp_path, "test")
    np.testing.assert_allclose(song.stems()[2], 2 * hiss(0.1, 2), atol=1e-6)


def test_a_mono_pool_is_read_as_stereo_from_any_position(pooled: Path, tone: Tone) -> None:
    (track,) = training_pools(pooled).vocals
    audio = track.read(1000, 500)
    np.testing.assert_allclose(audio, np.stack([tone(440, 4)[1000:1500]] * 2), atol=1e-4)
    assert not track.read(10 * RATE, 5).any()


def test_an_empty_folder_is_refused_with_the_files_it_must_contain(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"must contain train/SONG/vocals\.wav"):
        training_pools(tmp_path)
    with pytest.raises(AudioError, match=r"must contain test/SONG/mixture\.wav"):
        songs(tmp_path, "test")


def test_another_rate_is_refused(tmp_path: Path, hiss: Hiss) -> None:
    for name in ("vocals/a.wav", "instrumental/b.wav"):
        write(tmp_path / "train" / name, hiss(0.1, 2), rate=48000)
    with pytest.raises(AudioError, match="must be at 44100 Hz; got 48000 Hz"):
        training_pools(tmp_path).vocals[0].read()


def test_a_voice_at_another_rate_than_its_mixture_is_refused(musdb: Path, hiss: Hiss) -> None:
    write(musdb / "test" / "B" / "vocals.wav", hiss(0.1, 2), rate=48000)
    with pytest.raises(AudioError, match=r"vocals\.wav must be at 44100 Hz; got 48000 Hz"):
        songs(musdb, "test")[0].stems()


def test_a_voice_of_another_length_than_its_mixture_is_refused(musdb: Path, hiss: Hiss) -> None:
    write(musdb / "test" / "B" / "vocals.wav", hiss(0.5, 2))
    with pytest.raises(AudioError, match=r"as long as its mixture, 0\.1 s; got 0\.5 s"):
        songs(musdb, "test")[0].stems()


def test_a_file_that_is_not_audio_is_named(musdb: Path) -> None:
    (musdb / "test" / "B" / "vocals.wav").write_bytes(b"RIFF, but no more")
    with pytest.raises(AudioError, match=r"vocals\.wav cannot be read"):
        songs(musdb, "test")[0].stems()
