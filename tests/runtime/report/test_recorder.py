"""What a report keeps of a song: exact figures, and curves that are in their places."""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2.audio.array import Exact
from bsmamba2.report.recorder import Recorder, Recording
from bsmamba2.report.spectrogram import ROWS
from bsmamba2.report.timeline import CAPACITY

RATE = 8000


def record(stems: Exact, song: Exact | None = None, block: int = 5000) -> Recording:
    """Records stems that arrive in blocks, with the song or their sum."""
    song = stems.sum(axis=0) if song is None else song
    names = [f"stem{row}" for row in range(len(stems))]
    recorder = Recorder(names, RATE, stems.shape[1], stems.shape[2], 1_000_000)
    for start in range(0, stems.shape[-1], block):
        recorder.expect(song[:, start : start + block])
        recorder.push(stems[..., start : start + block])
    return recorder.finish()


def noise(seconds: float) -> Exact:
    shape = 2, 2, round(seconds * RATE)
    return np.random.default_rng(0).uniform(-0.4, 0.4, shape)


@pytest.mark.parametrize("seconds", [0.01, 0.3, 2.7, 20])
def test_the_figures_are_those_of_all_samples(seconds: float) -> None:
    stems = noise(seconds)
    recording = record(stems)
    assert [track.name for track in recording.tracks] == ["mixture", "stem0", "stem1"]
    assert recording.seconds == pytest.approx(seconds)
    for track, audio in zip(recording.tracks[1:], stems, strict=True):
        assert track.peak.max() == np.abs(audio).max().astype(np.float32)
        assert track.mean_square == pytest.approx(np.square(audio).mean(), rel=1e-4)
        assert track.clipped == 0


def test_the_result_does_not_depend_on_the_blocks() -> None:
    one, other = (record(noise(3), block=block) for block in (100, 24000))
    np.testing.assert_allclose(one.tracks[1].power, other.tracks[1].power, rtol=1e-4, atol=1e-9)
    assert one.tracks[2].audio == other.tracks[2].audio


def test_samples_at_full_scale_are_counted() -> None:
    stems = noise(1)
    stems[0, 0, [10, 20, 30]], stems[0, 1, 20] = 1.5, 1 - 2**-15
    assert [track.clipped for track in record(stems).tracks[1:]] == [4, 0]


@pytest.mark.parametrize("error", [0.0, 1e-7, 0.25])
def test_the_largest_error_of_the_sum_is_found(error: float) -> None:
    stems = noise(2)
    song = stems.sum(axis=0)
    song[1, 777] += error
    found = record(stems, song).sum_error
    assert found == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize("seconds", [1, 40, 200])
def test_a_sound_is_in_its_column(seconds: int) -> None:
    stems, length = np.zeros((1, 1, seconds * RATE)), seconds * RATE
    stems[0, 0, round(0.59 * length) : round(0.61 * length) : 8] = 0.5
    track = record(stems, block=1 << 16).tracks[1]
    assert track.peak.argmax() / len(track.peak) == pytest.approx(0.6, abs=0.02)
    assert track.power.sum(axis=0).argmax() / len(track.peak) == pytest.approx(0.6, abs=0.02)


def test_a_stem_is_active_where_it_is_heard() -> None:
    stems = noise(4)
    stems[0, :, 2 * RATE :] *= 1e-3
    first, vocals, _ = record(stems).tracks
    active = vocals.is_active(first.mean_square)
    assert active.mean() == pytest.approx(0.5, abs=0.02)
    assert active[: len(active) // 2 - 2].all()


def test_silence_is_never_active() -> None:
    first, stem = record(np.zeros((1, 2, RATE))).tracks
    assert not stem.is_active(first.mean_square).any()


def test_memory_does_not_grow_with_the_song() -> None:
    recorder = Recorder(["a"], RATE, 1, 0, 1_000_000)
    block = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 1, 1 << 18))
    for _ in range(12):
        recorder.push(block)
    recording = recorder.finish()
    track = recording.tracks[1]
    assert track.power.shape[0] == ROWS
    assert CAPACITY / 4 <= len(track.level) <= CAPACITY / 2 + 1  # half of it fits this size
    assert len(track.audio) < 750_000
    assert recording.audio_seconds < recording.seconds
