"""The result of a separation: stems by name, and files that sum to the song."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import bsmamba2
from bsmamba2 import AudioError, ModelError, Separator
from support.engines import SIX, Stubs
from support.files import integers
from support.fixtures import Noise, WriteSong


@pytest.mark.parametrize("name", ["instrumental", "other", "accompaniment", "no_vocals"])
def test_the_instrumental_has_other_names_too(stub: Stubs, noise: Noise, name: str) -> None:
    stems = Separator(stub.half())(noise(2, 99), 44100)
    assert list(stems) == ["vocals", "instrumental"]
    assert name in stems
    np.testing.assert_array_equal(stems[name], stems["instrumental"])


def test_an_unknown_stem_is_a_key_error_that_lists_the_known_ones(
    stub: Stubs, noise: Noise
) -> None:
    stems = Separator(stub.half())(noise(2, 99), 44100)
    assert stems.get("drums") is None
    with pytest.raises(KeyError) as caught:
        stems["drums"]
    error: BaseException = caught.value
    assert isinstance(error, ModelError)
    assert str(error) == "stem must be one of vocals, instrumental; got 'drums'"


def test_a_stem_called_other_is_not_replaced_by_the_instrumental(stub: Stubs, noise: Noise) -> None:
    engine = stub.left_and_right(stems=("other", "instrumental"))
    stems = Separator(engine)(noise(2, 99), 44100)
    assert not np.array_equal(stems["other"], stems["instrumental"])


def test_several_stems_have_an_instrumental_that_is_everything_but_the_vocals(
    stub: Stubs, noise: Noise
) -> None:
    audio = noise(2, 99)
    stems = Separator(stub.six_shares())(audio, 44100)
    assert list(stems) == [*SIX, "residual"]
    np.testing.assert_allclose(stems["instrumental"], audio - stems["vocals"], atol=1e-6)


def test_a_part_of_the_stems_has_no_instrumental(stub: Stubs, noise: Noise) -> None:
    stems = Separator(stub.six_shares())(noise(2, 99), 44100, stems=["drums", "vocals"])
    assert "instrumental" not in stems


def test_the_instrumental_of_several_stems_can_be_requested_alone(
    stub: Stubs, noise: Noise
) -> None:
    audio, separator = noise(2, 99), Separator(stub.six_shares())
    (alone,) = separator(audio, 44100, stems="instrumental").values()
    np.testing.assert_allclose(alone, separator(audio, 44100)["instrumental"], atol=1e-6)


def test_the_representation_shows_names_length_channels_and_rate(stub: Stubs, noise: Noise) -> None:
    stems = Separator(stub.half())(noise(2, 48000), 48000)
    assert repr(stems) == "Stems(vocals, instrumental: 1.000 s, 2 channels, 48000 Hz)"


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_saved_stems_sum_to_the_song_to_the_bit(
    stub: Stubs, song: WriteSong, tmp_path: Path, subtype: str
) -> None:
    path = song("song.wav", subtype)
    saved = bsmamba2.separate(path, stub.lower_half_band()).save(tmp_path / "out", subtype=subtype)
    np.testing.assert_array_equal(sum(map(integers, saved.values())), integers(path))


def test_saved_stems_are_named_after_the_song_or_as_requested(
    stub: Stubs, song: WriteSong, noise: Noise, tmp_path: Path
) -> None:
    from_file = bsmamba2.separate(song(), stub.half()).save(tmp_path / "a")
    from_array = Separator(stub.half())(noise(99, 2), 44100).save(tmp_path / "b", format="wav")
    assert from_file["vocals"] == tmp_path / "a" / "song_vocals.flac"
    assert from_array["vocals"] == tmp_path / "b" / "vocals.wav"
    named = Separator(stub.half())(noise(1, 99)[0], 44100).save(tmp_path, name="x")
    assert named["instrumental"] == tmp_path / "x_instrumental.flac"


def test_a_saved_stem_keeps_rate_length_and_channels(
    stub: Stubs, noise: Noise, tmp_path: Path
) -> None:
    saved = Separator(stub.half())(noise(999, 2), 48000).save(tmp_path)
    audio, rate = soundfile.read(saved["vocals"])
    assert (audio.shape, rate) == ((999, 2), 48000)


def test_stems_without_samples_cannot_be_saved(stub: Stubs, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="stems without samples cannot be saved"):
        Separator(stub.half())(np.zeros(0), 44100).save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mix_is_the_stems_at_their_gains(stub: Stubs, noise: Noise) -> None:
    stems = Separator(stub.half())(noise(2, 99).T, 44100)
    expected = 10 ** (-14 / 20) * stems["vocals"] + stems["instrumental"]
    mixed = stems.mix(vocals=-14, instrumental=0)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, expected, atol=1e-6)
    np.testing.assert_array_equal(mixed, stems.mix({"voice": -14}, other=0))


def test_a_mix_of_all_stems_at_0_db_is_the_song(stub: Stubs, noise: Noise) -> None:
    song = noise(2, 99)
    stems = Separator(stub.six_shares())(song, 44100)
    np.testing.assert_allclose(stems.mix(dict.fromkeys(stems, 0.0)), song, atol=1e-6)
    np.testing.assert_allclose(stems.mix(vocals=0, instrumental=0), song, atol=1e-6)


def test_a_mix_with_two_gains_for_a_stem_is_refused(stub: Stubs, noise: Noise) -> None:
    stems = Separator(stub.half())(noise(2, 99), 44100)
    with pytest.raises(AudioError, match="one gain; got vocals twice"):
        stems.mix({"vocals": 0}, vocals=1)
