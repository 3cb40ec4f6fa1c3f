"""Voices from recordings: exactly silent in pauses, and in tune when they sing."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soxr

from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError
from bsmamba2_training.fetching import fetch
from bsmamba2_training.singing import MAJOR, Style, _time_map, find_syllables, sing
from bsmamba2_training.songs import estimate_key, place_passages
from bsmamba2_training.sources import PACKAGES
from bsmamba2_training.voices import clean, frame_levels_db, gate_gains, join

Tone = Callable[[float, float], Audio]
Hiss = Callable[..., Audio]

RATE = 44100


@pytest.fixture
def speech() -> Audio:
    """Three vowels: a buzz at 150 Hz with an envelope, and silence between them."""
    t = np.arange(int(1.8 * RATE)) / RATE
    buzz = np.sum([np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 60)], axis=0)
    vowels = np.clip(np.sin(2 * np.pi * t / 0.6), 0, 1)
    out: Audio = (0.2 * buzz * vowels).astype(np.float32)
    return out


def sung(speech: Audio, style: Style, seed: int = 0) -> Audio:
    """Speech sung in a style; fails if no pitch is found."""
    out = sing(speech, np.random.default_rng(seed), style)
    assert out is not None
    return out


def test_the_gate_zeros_hiss_and_keeps_the_voice(tone: Tone, hiss: Hiss) -> None:
    audio = np.concatenate([tone(200, 0.5), 0.001 * hiss(1)[0], tone(200, 0.5)])
    gains = gate_gains(audio, float(frame_levels_db(audio).max()))
    assert not gains[int(0.65 * RATE) : int(1.35 * RATE)].any()
    assert (gains[: int(0.5 * RATE)][500:] == 1).all()


def test_a_recording_is_levelled_and_trimmed(tone: Tone) -> None:
    out = clean(np.pad(0.05 * tone(200, 1), (RATE, RATE)))
    assert out is not None
    assert 10 * np.log10(np.square(out[4410:-8820]).mean()) == pytest.approx(-20, abs=0.5)
    assert len(out) < 1.3 * RATE


def test_hiss_and_clipped_recordings_are_not_used(tone: Tone, hiss: Hiss) -> None:
    assert clean(hiss(2)[0]) is None
    assert clean(np.clip(30 * tone(200, 1), -1, 1)) is None


def test_each_vowel_is_a_syllable(speech: Audio) -> None:
    f0 = np.where(np.sin(2 * np.pi * np.arange(360) * 0.005 / 0.6) > 0.05, 150.0, 0.0)
    assert len(find_syllables(f0, speech)) == 3


PLAIN = Style(key=0, eighth_ms=250, transpose=5, formant_scale=1.0, vibrato_cents=0, vibrato_hz=5)


def test_singing_is_reproducible_and_on_the_scale(speech: Audio) -> None:
    np.testing.assert_array_equal(sung(speech, PLAIN), sung(speech, PLAIN))
    assert distance_from_c_major(pitch_of(sung(speech, PLAIN))) < 0.1


def test_held_notes_are_longer_and_on_the_scale(speech: Audio) -> None:
    plain, held = sung(speech, PLAIN), sung(speech, replace(PLAIN, held=True))
    assert np.count_nonzero(held) > 1.5 * np.count_nonzero(plain)
    assert distance_from_c_major(pitch_of(held)) < 0.1


def test_held_notes_without_gaps_end_on_the_eighths() -> None:
    notes = [(20 * n, 20 * n + 15) for n in range(8)]
    _, note_of = _time_map(160, notes, 47.3, np.full(8, 4), np.zeros(8, bool))
    ends = np.flatnonzero(np.diff(note_of))[:7] + 1
    np.testing.assert_allclose(ends, 47.3 * 4 * np.arange(1, 8), atol=1)


def test_a_vocalise_leaves_out_most_consonants_and_pauses(speech: Audio) -> None:
    held, vocalise = (
        sung(np.tile(speech, 3), replace(PLAIN, held=True, legato=legato))
        for legato in (False, True)
    )
    assert count_silences(vocalise) < 0.7 * count_silences(held)


@pytest.mark.parametrize("formant_scale", [0.82, 1.0, 1.22])
def test_the_singers_formant_is_at_2_9_khz_for_any_formant_scale(
    speech: Audio, formant_scale: float
) -> None:
    style = replace(PLAIN, held=True, formant_scale=formant_scale)
    plain, ringing = (
        band_power(sung(speech, replace(style, singer_formant_db=gain_db))) for gain_db in (0, 12)
    )
    gains_db = [10 * np.log10(ringing(hz) / plain(hz)) for hz in (1000, 2900)]
    assert gains_db[1] - gains_db[0] == pytest.approx(12, abs=2)


def test_brightness_is_a_gain_per_octave(speech: Audio) -> None:
    plain, bright = (
        band_power(sung(speech, replace(PLAIN, held=True, brightness_db=gain_db)))
        for gain_db in (0, 3)
    )
    gains_db = [10 * np.log10(bright(hz) / plain(hz)) for hz in (1000, 4000)]
    assert gains_db[1] - gains_db[0] == pytest.approx(6, abs=1.5)


def test_the_high_formant_scale_moves_high_formants_and_not_low_ones(speech: Audio) -> None:
    plain, scaled = (
        band_power(sung(speech, replace(PLAIN, high_formant_scale=scale))) for scale in (1.0, 1.18)
    )
    np.testing.assert_allclose(scaled(600), plain(600), rtol=0.1)
    assert scaled(4000) != pytest.approx(plain(4000), rel=0.1)


def test_held_notes_of_a_voice_recorded_at_16_khz_get_a_top_band(speech: Audio) -> None:
    low_rate = soxr.resample(soxr.resample(speech, RATE, 16000), 16000, RATE)
    plain, held = (
        band_power(sung(low_rate, style)) for style in (PLAIN, replace(PLAIN, held=True))
    )
    assert plain(12000) < 1e-5 * plain(5000)
    assert held(12000) > 1e-3 * held(5000)


def test_voices_in_unison_are_out_of_tune(speech: Audio) -> None:
    """Partials get wider; copies that are only delayed would leave their width unchanged."""
    vowel = speech[: int(0.6 * RATE)]
    one, three = (
        sung(vowel, replace(PLAIN, held=True, unison=voices), seed=3) for voices in (1, 3)
    )
    assert width_hz(three) > 2 * width_hz(one)


def pitch_of(audio: Audio) -> float:
    """The pitch of the loudest partial below 600 Hz, as a MIDI note number."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 1 << 18))
    hz = np.argmax(spectrum[: int(600 / RATE * (1 << 18))]) * RATE / (1 << 18)
    return float(12 * np.log2(hz / 440) + 69)


def width_hz(audio: Audio) -> float:
    """Standard deviation along frequency of the power of the tenth partial."""
    centre = 10 * 440 * 2 ** ((pitch_of(audio) - 69) / 12)
    power = np.square(np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 1 << 18)))
    hz = np.fft.rfftfreq(1 << 18, 1 / RATE)
    is_near = np.abs(hz / centre - 1) < 0.03
    mean = np.average(hz[is_near], weights=power[is_near])
    return float(np.sqrt(np.average(np.square(hz[is_near] - mean), weights=power[is_near])))


def distance_from_c_major(note: float) -> float:
    """Semitones to the nearest note of the scale."""
    return min(abs(note - n) for n in range(128) if n % 12 in MAJOR)


def count_silences(audio: Audio) -> int:
    """Number of stretches of exact zeros."""
    return int(np.count_nonzero(np.diff((audio == 0).astype(int)) == 1))


def band_power(audio: Audio) -> Callable[[float], float]:
    """``power(hz)``: the mean power in a third-octave band around ``hz``."""
    spectrum = np.square(np.abs(np.fft.rfft(audio)))
    bin_hz = np.fft.rfftfreq(len(audio), 1 / RATE)

    def power(hz: float) -> float:
        return float(spectrum[(bin_hz > hz * 2**-0.167) & (bin_hz < hz * 2**0.167)].mean())

    return power


def test_passages_have_three_lengths_in_turn_with_exact_silence_between() -> None:
    out = place_passages(np.ones(60 * RATE, np.float32), 60 * RATE, np.random.default_rng(0))
    edges = np.flatnonzero(np.diff(out != 0, prepend=False, append=False)) / RATE
    lengths, silences = edges[1::2] - edges[::2], edges[2::2] - edges[1:-1:2]
    assert len(lengths) >= 3
    for number, length in enumerate(lengths):
        shortest, longest = ((1, 2), (2, 4), (4, 8))[number % 3]
        assert shortest - 0.001 < length < longest  # the fades start and end at exactly zero
    assert (silences > 1.5).all()


def test_the_estimated_key_contains_the_notes_of_the_music(tone: Tone) -> None:
    notes = [tone(hz, 2) for hz in (261.63, 329.63, 392.0, 440.0, 493.88)]
    chord: Audio = np.sum(notes, axis=0)
    assert estimate_key(np.stack([chord, chord])) in (0, 7)  # C or G: both contain C E G A B


def test_joined_words_are_separated_by_silence() -> None:
    word = np.ones(1000, np.float32)
    out = join([word, word], np.random.default_rng(0))
    assert (out == 0).sum() >= 2 * 0.05 * RATE - 2


def test_a_package_with_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    package = PACKAGES[0]
    archive = tmp_path / "packages" / f"{package.name}_{package.version}_all.deb"
    archive.parent.mkdir()
    archive.write_bytes(b"something else")
    with pytest.raises(AudioError, match="must have the SHA-256"):
        fetch(package, tmp_path)


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb to unpack packages")
def test_a_package_is_unpacked_below_a_relative_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    control = Path("tree/DEBIAN/control")
    control.parent.mkdir(parents=True)
    fields = {"Package": "song", "Version": "1", "Architecture": "all", "Maintainer": "nobody"}
    control.write_text("".join(f"{k}: {v}\n" for k, v in fields.items()) + "Description: song\n")
    Path("tree/song.ogg").write_bytes(b"a song")
    archive = Path("work/packages/song_1_all.deb")
    archive.parent.mkdir(parents=True)
    subprocess.run(["dpkg-deb", "--build", "tree", archive], check=True, capture_output=True)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    package = replace(PACKAGES[0], name="song", version="1", sha256=sha256)
    assert (fetch(package, Path("work")) / "song.ogg").read_bytes() == b"a song"
