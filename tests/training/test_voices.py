"""Voices made from recordings: silent where they should be, in tune where they sing."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soxr

from bsmamba2.errors import AudioError
from bsmamba2_training.singing import MAJOR, Style, _time_map, sing, syllables
from bsmamba2_training.songs import key_of, passages
from bsmamba2_training.sources import PACKAGES, fetch
from bsmamba2_training.voices import clean, frame_levels_db, gate, join

RATE = 44100


@pytest.fixture
def speech():
    """Three vowels: a buzz of 150 Hz under an envelope, with silence between."""
    t = np.arange(int(1.8 * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 60))
    vowels = np.clip(np.sin(2 * np.pi * t / 0.6), 0, 1)
    return (0.2 * buzz * vowels).astype(np.float32)


def test_the_gate_zeros_hiss_and_keeps_the_voice(tone, hiss):
    audio = np.concatenate([tone(200, 0.5), 0.001 * hiss(1)[0], tone(200, 0.5)])
    gains = gate(audio, float(frame_levels_db(audio).max()))
    assert not gains[int(0.65 * RATE) : int(1.35 * RATE)].any()
    assert (gains[: int(0.5 * RATE)][500:] == 1).all()


def test_a_recording_comes_out_level_and_trimmed(tone):
    audio = np.pad(0.05 * tone(200, 1), (RATE, RATE))
    out = clean(audio.astype(np.float32))
    assert 10 * np.log10(np.square(out[4410:-8820]).mean()) == pytest.approx(-20, abs=0.5)
    assert len(out) < 1.3 * RATE


def test_hiss_and_clipped_recordings_are_not_used(tone, hiss):
    assert clean(hiss(2)[0].astype(np.float32)) is None
    assert clean(np.clip(30 * tone(200, 1), -1, 1).astype(np.float32)) is None


def test_vowels_are_the_syllables(speech):
    f0 = np.where(np.sin(2 * np.pi * np.arange(360) * 0.005 / 0.6) > 0.05, 150.0, 0.0)
    assert len(syllables(f0, speech)) == 3


PLAIN = Style(key=0, eighth_ms=250, transpose=5, throat=1.0, vibrato_cents=0, vibrato_hz=5)


def test_singing_is_reproducible_and_moves_to_the_scale(speech):
    sung = sing(speech, np.random.default_rng(0), PLAIN)
    np.testing.assert_array_equal(sung, sing(speech, np.random.default_rng(0), PLAIN))
    assert from_c_major(pitch_of(sung)) < 0.1


def test_held_notes_are_longer_and_on_the_scale(speech):
    plain = sing(speech, np.random.default_rng(0), PLAIN)
    held = sing(speech, np.random.default_rng(0), replace(PLAIN, held=True))
    assert np.count_nonzero(held) > 1.5 * np.count_nonzero(plain)
    assert from_c_major(pitch_of(held)) < 0.1


def test_held_notes_without_gaps_keep_to_the_eighths():
    notes = [(20 * n, 20 * n + 15) for n in range(8)]
    _, note_of = _time_map(160, notes, 47.3, np.full(8, 4), np.zeros(8, bool))
    ends = np.flatnonzero(np.diff(note_of))[:7] + 1
    np.testing.assert_allclose(ends, 47.3 * 4 * np.arange(1, 8), atol=1)


def test_a_vocalise_leaves_out_most_of_what_lies_between_vowels(speech):
    held, vocalise = (
        sing(np.tile(speech, 3), np.random.default_rng(0), replace(PLAIN, held=True, legato=legato))
        for legato in (False, True)
    )
    assert silences(vocalise) < 0.7 * silences(held)


@pytest.mark.parametrize("throat", [0.82, 1.0, 1.22])
def test_a_full_voice_rings_at_2_9_khz_in_any_throat(speech, throat):
    style = replace(PLAIN, held=True, throat=throat)
    plain, rings = (
        power(sing(speech, np.random.default_rng(0), replace(style, ring_db=db))) for db in (0, 12)
    )
    raised = [10 * np.log10(rings(hz) / plain(hz)) for hz in (1000, 2900)]
    assert raised[1] - raised[0] == pytest.approx(12, abs=2)


def test_a_bright_voice_gains_so_much_an_octave(speech):
    plain, bright = (
        power(sing(speech, np.random.default_rng(0), replace(PLAIN, held=True, bright_db=db)))
        for db in (0, 3)
    )
    raised = [10 * np.log10(bright(hz) / plain(hz)) for hz in (1000, 4000)]
    assert raised[1] - raised[0] == pytest.approx(6, abs=1.5)


def test_another_mouth_moves_high_formants_and_leaves_low_ones(speech):
    plain, wide = (
        power(sing(speech, np.random.default_rng(0), replace(PLAIN, mouth=mouth)))
        for mouth in (1.0, 1.18)
    )
    np.testing.assert_allclose(wide(600), plain(600), rtol=0.1)
    assert wide(4000) != pytest.approx(plain(4000), rel=0.1)


def test_a_voice_recorded_at_16_khz_gets_a_top_where_it_holds_its_notes(speech):
    low = soxr.resample(soxr.resample(speech, RATE, 16000), 16000, RATE)
    plain, held = (
        power(sing(low, np.random.default_rng(0), style))
        for style in (PLAIN, replace(PLAIN, held=True))
    )
    assert plain(12000) < 1e-5 * plain(5000)
    assert held(12000) > 1e-3 * held(5000)


def test_voices_in_unison_are_out_of_tune(speech):
    """A copy that is only late leaves a partial as narrow as it was."""
    vowel = speech[: int(0.6 * RATE)]
    alone, three = (
        sing(vowel, np.random.default_rng(3), replace(PLAIN, held=True, unison=voices))
        for voices in (1, 3)
    )
    assert width_hz(three) > 2 * width_hz(alone)


def pitch_of(sung):
    """The note of the loudest partial below 600 Hz, in semitones as MIDI counts them."""
    spectrum = np.abs(np.fft.rfft(sung * np.hanning(len(sung)), 1 << 18))
    hz = np.argmax(spectrum[: int(600 / RATE * (1 << 18))]) * RATE / (1 << 18)
    return 12 * np.log2(hz / 440) + 69


def width_hz(sung):
    """Standard deviation of the tenth partial's power along frequency."""
    middle = 10 * 440 * 2 ** ((pitch_of(sung) - 69) / 12)
    power = np.square(np.abs(np.fft.rfft(sung * np.hanning(len(sung)), 1 << 18)))
    hz = np.fft.rfftfreq(1 << 18, 1 / RATE)
    near = np.abs(hz / middle - 1) < 0.03
    mean = np.average(hz[near], weights=power[near])
    return np.sqrt(np.average(np.square(hz[near] - mean), weights=power[near]))


def from_c_major(note):
    """Semitones from the nearest note of the scale."""
    return min(abs(note - n) for n in range(128) if n % 12 in MAJOR)


def silences(audio):
    """How many stretches of exact zeros."""
    return np.count_nonzero(np.diff((audio == 0).astype(int)) == 1)


def power(audio):
    """power(hz): the mean over a band of a third of an octave around it."""
    spectrum = np.square(np.abs(np.fft.rfft(audio)))
    of_bin = np.fft.rfftfreq(len(audio), 1 / RATE)
    return lambda hz: spectrum[(of_bin > hz * 2**-0.167) & (of_bin < hz * 2**0.167)].mean()


def test_passages_are_of_three_lengths_in_turn_with_exact_silence_between():
    out = passages(np.ones(60 * RATE, np.float32), 60 * RATE, np.random.default_rng(0))
    edges = np.flatnonzero(np.diff(out != 0, prepend=False, append=False)) / RATE
    lengths, silences = edges[1::2] - edges[::2], edges[2::2] - edges[1:-1:2]
    assert len(lengths) >= 3
    for number, length in enumerate(lengths):
        shortest, longest = ((1, 2), (2, 4), (4, 8))[number % 3]
        assert shortest - 0.001 < length < longest  # its fades begin and end at zero
    assert (silences > 1.5).all()


def test_the_key_of_a_c_major_chord_holds_its_notes(tone):
    chord = sum(tone(hz, 2) for hz in (261.63, 329.63, 392.0, 440.0, 493.88))
    assert key_of(np.stack([chord, chord])) in (0, 7)  # C or G: both hold C E G A B


def test_joined_words_are_apart(tone):
    word = np.ones(1000, np.float32)
    out = join([word, word], np.random.default_rng(0))
    assert (out == 0).sum() >= 2 * 0.05 * RATE - 2


def test_a_package_of_another_hash_is_refused(tmp_path):
    package = PACKAGES[0]
    archive = tmp_path / "packages" / f"{package.name}_{package.version}_all.deb"
    archive.parent.mkdir()
    archive.write_bytes(b"something else")
    with pytest.raises(AudioError, match="must have the SHA-256"):
        fetch(package, tmp_path)


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="packages are unpacked by dpkg-deb")
def test_a_package_is_unpacked_below_a_relative_folder(tmp_path, monkeypatch):
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
