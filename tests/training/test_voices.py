"""Voices made from recordings: silent where they should be, in tune where they sing."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bsmamba2.errors import AudioError
from bsmamba2_training.singing import Style, sing, syllables
from bsmamba2_training.songs import key_of, passages
from bsmamba2_training.sources import PACKAGES, fetch
from bsmamba2_training.voices import clean, frame_levels_db, gate, join

RATE = 44100


@pytest.fixture
def speech():
    """Three vowels: a buzz of 150 Hz under an envelope, with silence between."""
    t = np.arange(int(1.8 * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 30))
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


def test_singing_is_reproducible_and_moves_to_the_scale(speech):
    style = Style(key=0, eighth_ms=250, transpose=5, throat=1.0, vibrato_cents=0, vibrato_hz=5)
    sung = sing(speech, np.random.default_rng(0), style)
    np.testing.assert_array_equal(sung, sing(speech, np.random.default_rng(0), style))
    spectrum = np.abs(np.fft.rfft(sung * np.hanning(len(sung)), 1 << 18))
    hz = np.argmax(spectrum[: int(600 / RATE * (1 << 18))]) * RATE / (1 << 18)
    note = 12 * np.log2(hz / 440) + 69
    nearest = min(
        (n for n in range(128) if n % 12 in (0, 2, 4, 5, 7, 9, 11)), key=lambda n: abs(n - note)
    )
    assert note == pytest.approx(nearest, abs=0.35)


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
