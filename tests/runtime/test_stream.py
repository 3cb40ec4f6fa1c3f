"""Streams: the same output however the input is cut, and a latency that is exact."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError, Cancelled, ModelError, Separator
from bsmamba2.audio.schedule import Schedule
from bsmamba2.audio.stft import istft, stft
from bsmamba2.pipeline.song_pipeline import SongPipeline
from bsmamba2.pipeline.step_stream import StepStream
from bsmamba2.stream import Stream
from support.streams import run_steps

RATES = (8000, 22050, 44100, 48000, 96000)
SCHEDULES = ((1, 1), (3, 2), (2, 9), (40, 1))
LENGTHS = st.integers(0, 900)


def step_stream(stepper, rate=44100, channels=2, schedule=(3, 2), cancel=None):
    def start():
        steps = StepStream(stepper, Schedule(*schedule), channels, cancel)
        return SongPipeline(steps, rate, channels)

    return Stream(start, stepper.manifest, rate, channels)


def through(stream, audio, cuts=()):
    parts = [stream.push(part) for part in np.split(audio, cuts, axis=1)]
    parts.append(stream.flush())
    return np.concatenate([list(part.values()) for part in parts], axis=-1)


def held_back(stream, samples, size=1):
    """The most samples that had come and not gone, just before or after a push."""
    came = gone = most = 0
    while came < samples:
        gone += stream.push(np.zeros((1, size), np.float32))["vocals"].shape[-1]
        came += size
        most = max(most, came - gone)
    return most


@given(st.sampled_from(SCHEDULES), LENGTHS, st.lists(LENGTHS, max_size=9), st.integers(1, 3))
def test_steps_give_what_a_plain_loop_over_the_grid_gives(
    stub, noise, schedule, length, cuts, channels
):
    audio, engine = noise(channels, length), stub.wandering(channels=1)
    vocals, _ = through(step_stream(engine, 44100, channels, schedule), audio, sorted(cuts))
    engine.reset()
    frames = stft(audio[:, np.newaxis], 16, 4) if length else np.zeros((channels, 1, 0, 9, 2))
    stems = run_steps(engine.step, frames, Schedule(*schedule))
    wanted = istft(np.concatenate(stems, axis=3)[:, 0, 0], 16, 4, length) if length else audio
    np.testing.assert_array_equal(vocals, wanted)


class Nth:
    """An event that is set when it is looked at for the nth time."""

    def __init__(self, looks):
        self.looks = looks

    def is_set(self):
        self.looks -= 1
        return self.looks < 0


def kinds_of_streams(stub, cancel, runs):
    """A stream by chunks and one by steps; ``runs`` gets an entry a run of the model."""

    def chunk(audio):
        runs.append(audio)
        return audio[np.newaxis]

    def step(memory, frames):
        runs.append(frames)
        return memory, frames[:, np.newaxis]

    yield Separator(stub.of(chunk)).stream(44100, cancel=cancel)
    stepper = stub.passing()
    stepper.separate = step
    yield step_stream(stepper, cancel=cancel)


@pytest.mark.parametrize("n", [0, 1, 7])
def test_a_push_stops_before_the_next_run_of_the_model(stub, noise, n):
    for kind in (0, 1):
        runs = []
        stream = list(kinds_of_streams(stub, Nth(n), runs))[kind]
        with pytest.raises(Cancelled, match="stopped by the caller"):
            stream.push(noise(2, 5000))
        assert len(runs) == n


def test_a_flush_stops_before_the_next_run_and_the_stream_begins_anew(stub, noise):
    for kind in (0, 1):
        cancel, runs = threading.Event(), []
        stream = list(kinds_of_streams(stub, cancel, runs))[kind]
        stream.push(noise(2, 500))
        before = len(runs)
        cancel.set()
        with pytest.raises(Cancelled):
            stream.flush()
        assert len(runs) == before
        cancel.clear()
        assert through(stream, noise(2, 300)).shape[-1] == 300


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("length", [0, 1, 2, 500, 3000])
def test_a_stream_sums_to_its_input_and_is_as_long(stub, noise, rate, length):
    for stream in (step_stream(stub.wandering(), rate), Separator(stub.restless()).stream(rate)):
        audio = noise(2, length)
        outputs = through(stream, audio)
        assert outputs.shape == (2, 2, length)
        np.testing.assert_allclose(outputs.sum(axis=0), audio, rtol=0, atol=1e-6)


@given(st.sampled_from(RATES), LENGTHS, st.lists(LENGTHS, max_size=20), st.integers(1, 3))
def test_the_output_does_not_depend_on_the_pushes(stub, noise, rate, length, cuts, channels):
    audio = noise(channels, length)
    separator = Separator(stub.restless())
    for stream in (
        step_stream(stub.wandering(), rate, channels),
        separator.stream(rate, channels),
    ):
        once = through(stream, audio)
        np.testing.assert_array_equal(through(stream, audio, sorted(cuts)), once)


def test_pushes_of_no_sample_and_of_one_give_the_same_bits(stub, noise):
    audio, cuts = noise(2, 700), sorted([*range(700), *range(0, 700, 7)])
    for stream in (step_stream(stub.wandering(), 48000), Separator(stub.restless()).stream(48000)):
        np.testing.assert_array_equal(through(stream, audio, cuts), through(stream, audio))


def test_a_stream_by_chunks_is_the_separation_of_the_whole(stub, noise):
    separator, audio = Separator(stub.restless()), noise(2, 999)
    whole = separator(audio, 48000, overlap=0.4)
    parts = through(separator.stream(48000, overlap=0.4), audio, [1, 77, 500])
    np.testing.assert_array_equal(parts, list(whole.values()))


@pytest.mark.parametrize(
    ("rate", "samples"), [(44100, 700), (22050, 6000), (88200, 12000), (48000, 16000)]
)
@pytest.mark.parametrize("schedule", [None, (3, 2), (2, 9)])
def test_the_latency_is_the_smallest_constant_that_never_comes_back_short(
    stub, rate, samples, schedule
):
    stream = Separator(stub.identity(channels=1)).stream(rate, 1)
    if schedule:
        stream = step_stream(stub.passing(channels=1), rate, 1, schedule)
    assert held_back(stream, samples) == stream.latency_samples


@pytest.mark.parametrize("rate", [8000, 11025, 32000, 44101, 96000, 192000, 384000, 44100.5])
def test_no_rate_comes_back_short(stub, rate):
    stream = Separator(stub.identity(channels=1, chunk=4096)).stream(rate, 1)
    most = held_back(stream, 1 << 19, 499)
    assert 4096 * rate / 44100 < most <= stream.latency_samples


def test_how_much_is_out_depends_on_how_much_came_alone(stub, noise):
    audio, counts = noise(2, 20000), []
    for size in (1000, 500, 20000):
        stream = step_stream(stub.passing(), 48000)
        pushes = [stream.push(audio[:, at : at + size]) for at in range(0, 20000, size)]
        counts.append(sum(push["vocals"].shape[1] for push in pushes))
    assert counts[0] == counts[1] == counts[2] > 20000 - stream.latency_samples - 1


def test_a_reset_and_a_flush_forget_all_that_came(stub, noise):
    stream = step_stream(stub.wandering(), 48000)
    fresh = through(stream, noise(2, 700))
    stream.push(noise(2, 300, seed=1))
    stream.reset()
    np.testing.assert_array_equal(through(stream, noise(2, 700)), fresh)


def test_silence_streams_to_silence(stub):
    stream = step_stream(stub.wandering(), 48000)
    assert not through(stream, np.zeros((2, 5000), np.float32)).any()


def test_mono_may_be_pushed_without_an_axis(stub, noise):
    stream = Separator(stub.half(channels=1)).stream(44100, 1)
    pushed = stream.push(noise(1, 500)[0])["vocals"]
    assert (pushed.ndim, pushed.dtype) == (1, np.float32)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((9, 2), np.float32), r"\(channels, n\) with 2 channels.*; \(9, 2\) .*samples\.T"),
        (np.zeros(9, np.float32), r"\(9,\) came"),
        (np.zeros((2, 9), np.int16), "got int16: pass audio / 32768"),
        (np.full((2, 9), np.nan, np.float32), "channel 1 is nan at 0.000113 s"),
    ],
)
def test_what_is_refused_leaves_the_stream_as_it_was(stub, noise, samples, message):
    stream = Separator(stub.restless()).stream(44100)
    first = stream.push(noise(2, 700)[:, :5])
    with pytest.raises(AudioError, match=message):
        stream.push(samples)
    assert first["vocals"].shape == (2, 0)
    whole = Separator(stub.restless())(noise(2, 700), 44100)["vocals"]
    rest = [*(stream.push(part) for part in (noise(2, 700)[:, 5:], noise(2, 0))), stream.flush()]
    np.testing.assert_array_equal(np.concatenate([part["vocals"] for part in rest], 1), whole)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"block_ms": 100}, "block_ms must be given with lookahead_ms; 100 came alone"),
        ({"lookahead_ms": 100, "overlap": 0.5}, "overlap must be given without lookahead_ms"),
        (
            {"block_ms": 9, "lookahead_ms": 0},
            "lookahead_ms must be 0.0907029 ms, a frame of the model, to 60000",
        ),
        ({"lookahead_ms": 9, "block_ms": 1e9}, "block_ms must be .* got 1e\\+09"),
        ({"channels": 0}, "1 to 64 channels; got 0"),
        ({"overlap": 2}, r"MSST's num_overlap 2 is 0\.5"),
    ],
)
def test_what_cannot_be_streamed_is_refused_at_once(stub, asked, message):
    with pytest.raises(AudioError, match=message):
        Separator(stub.half()).stream(44100, **asked)


def test_an_engine_alone_has_no_steps(stub):
    with pytest.raises(ModelError, match="lookahead_ms must be None with an engine"):
        Separator(stub.half()).stream(44100, lookahead_ms=1)


def test_steps_that_are_not_finite_are_an_error_with_their_time(stub, noise):
    stepper = stub.passing()
    stepper.separate = lambda memory, frames: (memory, frames[:, np.newaxis] * np.nan)
    with pytest.raises(ModelError, match=r"not finite near 0\.0 s"):
        step_stream(stepper).push(noise(2, 500))


class Clock:
    """A time that passes only while the engine runs."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("bsmamba2.stream.time.perf_counter", lambda: self.now)

    def takes(self, seconds):
        def separate(chunk):
            self.now += seconds
            return chunk[np.newaxis]

        return separate


@pytest.mark.parametrize(("seconds", "load"), [(0.5, 0.5), (2.0, 2.0)])
def test_the_load_is_what_a_second_takes(stub, noise, monkeypatch, caplog, seconds, load):
    engine = stub.of(Clock(monkeypatch).takes(seconds), sample_rate=8000, chunk=8000, overlap=0)
    stream = Separator(engine).stream(8000)
    with caplog.at_level(logging.WARNING, "bsmamba2"):
        for at in range(0, 48000, 100):
            stream.push(noise(2, 48100)[:, at : at + 100])
    assert stream.load == pytest.approx(load)
    assert len(caplog.records) == (load > 1)
    assert all("a second of audio takes 2.00 s" in record.message for record in caplog.records)


def test_how_late_a_live_output_would_be_is_measured(stub, noise, monkeypatch):
    engine = stub.of(Clock(monkeypatch).takes(0.75), sample_rate=8000, chunk=8000, overlap=0)
    stream = Separator(engine).stream(8000)
    for _ in range(400):
        stream.push(noise(2, 100))
    assert stream.late_seconds == pytest.approx(0.75)
    stream.reset()
    assert stream.late_seconds == stream.load == 0
