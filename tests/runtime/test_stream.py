"""Streams: output that does not depend on how input is split, and an exact latency."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError, Cancelled, ModelError, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.audio.schedule import Schedule
from bsmamba2.pipeline.resampled_core import ResampledCore
from bsmamba2.pipeline.song_pipeline import SongPipeline
from bsmamba2.pipeline.step_stream import StepStream
from bsmamba2.stream import Stream
from support.engines import Stubs, StubStepper
from support.fixtures import Noise

RATES = (8000, 22050, 44100, 48000, 96000)
LENGTHS = st.integers(0, 900)


def step_stream(
    stepper: StubStepper,
    rate: float = 44100,
    channels: int = 2,
    schedule: tuple[int, int] = (3, 2),
    cancel: threading.Event | None = None,
) -> Stream:
    """A stream by steps; ``schedule`` is the block and the lookahead in frames."""

    def start() -> SongPipeline:
        steps = StepStream(stepper, Schedule(*schedule), channels, cancel)
        return SongPipeline(ResampledCore(steps, rate, channels), rate, channels)

    return Stream(start, stepper.manifest, rate, channels)


def separate(stream: Stream, audio: Audio, cuts: Sequence[int] = ()) -> Audio:
    """Pushes the audio in parts that are cut at these samples, and flushes."""
    parts = [stream.push(part) for part in np.split(audio, cuts, axis=1)]
    parts.append(stream.flush())
    return np.concatenate([list(part.values()) for part in parts], axis=-1)


def measure_latency(stream: Stream, samples: int, size: int = 1) -> int:
    """Returns the most samples that were pushed and not yet returned, after any push."""
    received = emitted = most = 0
    while received < samples:
        emitted += stream.push(np.zeros((1, size), np.float32))["vocals"].shape[-1]
        received += size
        most = max(most, received - emitted)
    return most


class SetAtCheck(threading.Event):
    """An event that is set when it is checked for the nth time, counted from 0."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self._remaining = n

    def is_set(self) -> bool:
        self._remaining -= 1
        return self._remaining < 0


def cancellable_streams(
    stub: Stubs, cancel: threading.Event, runs: list[Audio]
) -> Iterator[Stream]:
    """A stream by chunks and one by steps, which add an entry to ``runs`` per run of the model."""

    def chunk(audio: Audio) -> Audio:
        runs.append(audio)
        return audio[np.newaxis]

    def step(memory: int, frames: Audio) -> tuple[int, Audio]:
        runs.append(frames)
        return memory, frames[:, np.newaxis]

    yield Separator(stub.of(chunk)).stream(44100, cancel=cancel)
    stepper = stub.passing()
    stepper.separate = step
    yield step_stream(stepper, cancel=cancel)


@pytest.mark.parametrize("n", [0, 1, 7])
@pytest.mark.parametrize("kind", [0, 1], ids=["chunks", "steps"])
def test_a_push_stops_before_the_next_run_of_the_model(
    stub: Stubs, noise: Noise, kind: int, n: int
) -> None:
    runs: list[Audio] = []
    stream = list(cancellable_streams(stub, SetAtCheck(n), runs))[kind]
    with pytest.raises(Cancelled, match="stopped by the caller"):
        stream.push(noise(2, 5000))
    assert len(runs) == n


@pytest.mark.parametrize("kind", [0, 1], ids=["chunks", "steps"])
def test_a_cancelled_flush_stops_before_the_next_run_and_ends_the_stream(
    stub: Stubs, noise: Noise, kind: int
) -> None:
    cancel, runs = threading.Event(), list[Audio]()
    stream = list(cancellable_streams(stub, cancel, runs))[kind]
    stream.push(noise(2, 500))
    before = len(runs)
    cancel.set()
    with pytest.raises(Cancelled):
        stream.flush()
    assert len(runs) == before
    cancel.clear()
    assert separate(stream, noise(2, 300)).shape[-1] == 300


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("length", [0, 1, 2, 500, 3000])
def test_the_output_sums_to_the_input_and_has_its_length(
    stub: Stubs, noise: Noise, rate: int, length: int
) -> None:
    for stream in (step_stream(stub.wandering(), rate), Separator(stub.restless()).stream(rate)):
        audio = noise(2, length)
        outputs = separate(stream, audio)
        assert outputs.shape == (2, 2, length)
        np.testing.assert_allclose(outputs.sum(axis=0), audio, rtol=0, atol=1e-6)


@given(st.sampled_from(RATES), LENGTHS, st.lists(LENGTHS, max_size=20), st.integers(1, 3))
def test_output_does_not_depend_on_how_input_is_split(
    stub: Stubs, noise: Noise, rate: int, length: int, cuts: list[int], channels: int
) -> None:
    audio = noise(channels, length)
    separator = Separator(stub.restless())
    for stream in (
        step_stream(stub.wandering(), rate, channels),
        separator.stream(rate, channels),
    ):
        whole = separate(stream, audio)
        np.testing.assert_array_equal(separate(stream, audio, sorted(cuts)), whole)


def test_pushes_of_one_sample_and_of_none_return_the_same_bits(stub: Stubs, noise: Noise) -> None:
    audio, cuts = noise(2, 700), sorted([*range(700), *range(0, 700, 7)])
    for stream in (step_stream(stub.wandering(), 48000), Separator(stub.restless()).stream(48000)):
        np.testing.assert_array_equal(separate(stream, audio, cuts), separate(stream, audio))


def test_a_stream_by_chunks_equals_the_separation_of_the_whole_song(
    stub: Stubs, noise: Noise
) -> None:
    separator, audio = Separator(stub.restless()), noise(2, 999)
    whole = separator(audio, 48000, overlap=0.4)
    parts = separate(separator.stream(48000, overlap=0.4), audio, [1, 77, 500])
    np.testing.assert_array_equal(parts, list(whole.values()))


@pytest.mark.parametrize(
    ("rate", "samples"), [(44100, 700), (22050, 6000), (88200, 12000), (48000, 16000)]
)
@pytest.mark.parametrize("schedule", [None, (3, 2), (2, 9)])
def test_the_latency_is_exact(
    stub: Stubs, rate: int, samples: int, schedule: tuple[int, int] | None
) -> None:
    stream = Separator(stub.identity(channels=1)).stream(rate, 1)
    if schedule:
        stream = step_stream(stub.passing(channels=1), rate, 1, schedule)
    assert measure_latency(stream, samples) == stream.latency_samples


@pytest.mark.parametrize("rate", [8000, 11025, 32000, 44101, 96000, 192000, 384000, 44100.5])
def test_the_latency_is_never_exceeded_at_any_rate(stub: Stubs, rate: float) -> None:
    stream = Separator(stub.identity(channels=1, chunk=4096)).stream(rate, 1)
    most = measure_latency(stream, 1 << 19, 499)
    assert 4096 * rate / 44100 < most <= stream.latency_samples


def test_the_number_of_returned_samples_depends_only_on_the_number_received(
    stub: Stubs, noise: Noise
) -> None:
    audio, counts = noise(2, 20000), []
    for size in (1000, 500, 20000):
        stream = step_stream(stub.passing(), 48000)
        pushes = [stream.push(audio[:, at : at + size]) for at in range(0, 20000, size)]
        counts.append(sum(push["vocals"].shape[1] for push in pushes))
    assert counts[0] == counts[1] == counts[2] > 20000 - stream.latency_samples - 1


def test_a_reset_or_a_flush_starts_a_new_stream(stub: Stubs, noise: Noise) -> None:
    stream = step_stream(stub.wandering(), 48000)
    first = separate(stream, noise(2, 700))
    stream.push(noise(2, 300, seed=1))
    stream.reset()
    np.testing.assert_array_equal(separate(stream, noise(2, 700)), first)


def test_silence_stays_silence(stub: Stubs) -> None:
    stream = step_stream(stub.wandering(), 48000)
    assert not separate(stream, np.zeros((2, 5000), np.float32)).any()


def test_mono_may_be_pushed_without_an_axis_for_channels(stub: Stubs, noise: Noise) -> None:
    stream = Separator(stub.half(channels=1)).stream(44100, 1)
    pushed = stream.push(noise(1, 500)[0])["vocals"]
    assert pushed.ndim == 1
    assert pushed.dtype == np.float32


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            np.zeros((9, 3), np.float32),
            r"\(channels, samples\) or .* with 2 channels; got \(9, 3\)",
        ),
        (np.zeros(9, np.float32), r"got \(9,\)"),
        (np.zeros((2, 9), np.int16), "got int16: pass audio / 32768"),
        (np.full((2, 9), np.nan, np.float32), "channel 1 is nan at 0.000113 s"),
    ],
)
def test_refused_samples_leave_the_stream_unchanged(
    stub: Stubs, noise: Noise, samples: npt.NDArray[Any], message: str
) -> None:
    stream = Separator(stub.restless()).stream(44100)
    first = stream.push(noise(2, 700)[:, :5])
    with pytest.raises(AudioError, match=message):
        stream.push(samples)
    assert first["vocals"].shape == (2, 0)
    whole = Separator(stub.restless())(noise(2, 700), 44100)["vocals"]
    rest = [*(stream.push(part) for part in (noise(2, 700)[:, 5:], noise(2, 0))), stream.flush()]
    np.testing.assert_array_equal(np.concatenate([part["vocals"] for part in rest], 1), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_ms": 100}, "block_ms must be None without lookahead_ms; got 100"),
        ({"lookahead_ms": 100, "overlap": 0.5}, "overlap must be None with lookahead_ms; got 0.5"),
        (
            {"block_ms": 9, "lookahead_ms": 0},
            "lookahead_ms must be 0.0907029 ms, a frame of the model, to 60000",
        ),
        ({"lookahead_ms": 9, "block_ms": 1e9}, "block_ms must be .* got 1e\\+09"),
        ({"channels": 0}, "1 to 64 channels; got 0"),
        ({"overlap": 2}, r"MSST's num_overlap 2 is 0\.5"),
    ],
)
def test_impossible_options_are_refused_when_the_stream_is_opened(
    stub: Stubs, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        Separator(stub.half()).stream(44100, **options)


def test_an_engine_for_whole_chunks_has_no_steps(stub: Stubs) -> None:
    with pytest.raises(ModelError, match="lookahead_ms must be None with an engine"):
        Separator(stub.half()).stream(44100, lookahead_ms=1)


class Clock:
    """A clock that advances only while the engine runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("bsmamba2.stream.time.perf_counter", lambda: self.now)

    def engine_taking(self, seconds: float) -> Callable[[Audio], Audio]:
        """A function for an engine that takes this long per run."""

        def separate(chunk: Audio) -> Audio:
            self.now += seconds
            return chunk[np.newaxis]

        return separate


@pytest.mark.parametrize(("seconds", "load"), [(0.5, 0.5), (2.0, 2.0)])
def test_the_load_is_measured_and_logged_once_above_1(
    stub: Stubs,
    noise: Noise,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seconds: float,
    load: float,
) -> None:
    separate = Clock(monkeypatch).engine_taking(seconds)
    engine = stub.of(separate, sample_rate=8000, chunk=8000, overlap=0)
    stream = Separator(engine).stream(8000)
    with caplog.at_level(logging.WARNING, "bsmamba2"):
        for at in range(0, 48000, 100):
            stream.push(noise(2, 48100)[:, at : at + 100])
    assert stream.load == pytest.approx(load)
    assert len(caplog.records) == (load > 1)
    assert all("one second of audio takes 2.00 s" in message for message in caplog.messages)


def test_the_delay_of_a_live_output_is_measured(
    stub: Stubs, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    separate = Clock(monkeypatch).engine_taking(0.75)
    engine = stub.of(separate, sample_rate=8000, chunk=8000, overlap=0)
    stream = Separator(engine).stream(8000)
    for _ in range(400):
        stream.push(noise(2, 100))
    assert stream.late_seconds == pytest.approx(0.75)
    stream.reset()
    assert stream.late_seconds == stream.load == 0


def pushed(stream: Stream, parts: Sequence[npt.NDArray[Any]], axis: int) -> Audio:
    """Pushes the parts and flushes; returns the vocals, joined along the axis of the samples."""
    vocals = [stream.push(part)["vocals"] for part in parts]
    return np.concatenate([*vocals, stream.flush()["vocals"]], axis=axis)


@given(st.integers(1, 3), LENGTHS, st.lists(st.integers(0, 900), max_size=8), st.booleans())
def test_both_orientations_of_an_array_give_the_same_stems(
    stub: Stubs, noise: Noise, channels: int, length: int, cuts: list[int], is_stated: bool
) -> None:
    audio, cuts = noise(channels, length), sorted(cuts)
    separator = Separator(stub.restless())
    first, last = (
        separator.stream(44100, channels, channels_first=order if is_stated else None)
        for order in (True, False)
    )
    if not is_stated:  # an empty part that can be only one of them, before any square one
        last.push(np.empty((0, channels), np.float32))
    expected = pushed(first, np.split(audio, cuts, axis=1), axis=1)
    transposed = pushed(last, np.split(audio.T, cuts, axis=0), axis=0)
    np.testing.assert_array_equal(transposed, expected.T)


def test_a_square_array_that_was_taken_for_the_other_orientation_is_an_error(
    stub: Stubs, noise: Noise
) -> None:
    stream = Separator(stub.half()).stream(44100)
    stream.push(noise(2, 2))
    with pytest.raises(AudioError, match=r"as which the square .*\(100, 2\): open.*channels_first"):
        stream.push(noise(2, 100).T)
    assert stream.push(noise(2, 100))["vocals"].shape[0] == 2
    assert stream.flush()["vocals"].shape[0] == 2
    stream.push(noise(2, 100).T)  # a new stream
    assert stream.flush()["vocals"].shape[1] == 2


@pytest.mark.parametrize(
    ("channels_first", "shape"), [(None, (3, 9)), (True, (9, 2)), (False, (2, 9)), (None, (9,))]
)
def test_a_push_of_another_shape_is_an_error_that_states_the_allowed_ones(
    stub: Stubs, noise: Noise, channels_first: bool | None, shape: tuple[int, ...]
) -> None:
    stream = Separator(stub.half()).stream(44100, channels_first=channels_first)
    with pytest.raises(AudioError, match=r"samples must be \(.* with 2 channels; got \("):
        stream.push(np.zeros(shape, np.float32))


def test_a_stream_is_shown_with_its_model_and_format(stub: Stubs) -> None:
    stream = Separator(stub.half(name="voice")).stream(48000, 1)
    assert repr(stream) == "Stream(voice: vocals, instrumental; 1 channel, 48000 Hz)"
