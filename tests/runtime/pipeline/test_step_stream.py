"""A stream in steps equals a plain loop over the grid of frames, in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError, Cancelled, ModelError
from bsmamba2.audio.array import Audio
from bsmamba2.audio.schedule import Schedule
from bsmamba2.audio.stft import istft, stft
from bsmamba2.pipeline.step_stream import StepStream
from support.engines import Stubs, StubStepper
from support.fixtures import Noise
from support.streams import run_steps

SCHEDULES = ((1, 1), (3, 2), (2, 9), (40, 1))
LENGTHS = st.integers(0, 900)


def separate(stream: StepStream, audio: Audio, cuts: Sequence[int] = ()) -> Audio:
    """Pushes the audio in parts that are cut at these samples, and flushes."""
    parts = [stream.push(part) for part in np.split(audio, cuts, axis=1)]
    return np.concatenate([*parts, stream.flush()], axis=-1)


def separate_by_definition(stepper: StubStepper, audio: Audio, schedule: Schedule) -> Audio:
    """The specification: the transform, all steps in a loop, and the inverse transform."""
    length = audio.shape[1]
    if not length:
        return audio[np.newaxis]
    stepper.reset()
    stems = run_steps(stepper.step, stft(audio[:, np.newaxis], 16, 4), schedule)
    return istft(np.concatenate(stems, axis=3)[:, 0, 0], 16, 4, length)[np.newaxis]


@given(st.sampled_from(SCHEDULES), LENGTHS, st.lists(LENGTHS, max_size=9), st.integers(1, 3))
def test_a_stream_equals_a_loop_over_the_grid_however_it_is_split(
    stub: Stubs,
    noise: Noise,
    sizes: tuple[int, int],
    length: int,
    cuts: list[int],
    channels: int,
) -> None:
    audio, stepper, schedule = noise(channels, length), stub.wandering(channels=1), Schedule(*sizes)
    stems = separate(StepStream(stepper, schedule, channels), audio, sorted(cuts))
    np.testing.assert_array_equal(stems, separate_by_definition(stepper, audio, schedule))


def test_a_long_push_is_transformed_in_pieces_with_the_same_result(
    stub: Stubs, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio, schedule = noise(2, 900), Schedule(3, 2)
    whole = separate(StepStream(stub.wandering(), schedule), audio)
    monkeypatch.setattr("bsmamba2.pipeline.step_stream.PIECE", 100)
    np.testing.assert_array_equal(separate(StepStream(stub.wandering(), schedule), audio), whole)


@pytest.mark.parametrize("sizes", SCHEDULES)
def test_samples_are_returned_one_block_at_a_time_as_stated(
    stub: Stubs, noise: Noise, sizes: tuple[int, int]
) -> None:
    block, lookahead = sizes
    stream = StepStream(stub.passing(channels=1), Schedule(block, lookahead))
    emitted = np.cumsum([stream.push(noise(1, 1)).shape[-1] for _ in range(900)])
    jumps, received = stream.jumps, np.arange(1, 901)
    blocks = (received - jumps.first) // jumps.period
    assert jumps.period == 4 * block
    np.testing.assert_array_equal(emitted, np.maximum(0, jumps.done + blocks * jumps.period))


def test_memory_does_not_grow_with_the_stream(stub: Stubs, noise: Noise) -> None:
    stream = StepStream(stub.passing(channels=1), Schedule(3, 2))
    for _ in range(1000):
        stream.push(noise(1, 64))
    assert stream._frames.shape[2] < 25


def test_a_new_stream_resets_its_stepper(stub: Stubs) -> None:
    stepper = stub.wandering()
    stepper.memory = 7
    StepStream(stepper, Schedule(3, 2))
    assert stepper.memory == 0


def test_silence_stays_silence(stub: Stubs) -> None:
    stream = StepStream(stub.wandering(), Schedule(3, 2))
    assert not separate(stream, np.zeros((2, 5000), np.float32)).any()


@pytest.mark.parametrize("side", [0, 1])
def test_a_channel_whose_partner_is_silent_is_separated_as_mono(noise: Noise, side: int) -> None:
    def centre(memory: int, frames: Audio) -> tuple[int, Audio]:
        return memory, np.where(frames == frames[:, ::-1], frames, 0)[:, np.newaxis]

    audio = np.zeros((2, 500), np.float32)
    audio[side] = noise(1, 500)
    stems = separate(StepStream(StubStepper(centre), Schedule(3, 2)), audio)
    np.testing.assert_allclose(stems[0], audio, rtol=0, atol=1e-5)


def test_cancelling_stops_before_the_next_step(stub: Stubs, noise: Noise) -> None:
    cancel, stepper = Event(), stub.wandering()
    stream = StepStream(stepper, Schedule(3, 2), cancel=cancel)
    stream.push(noise(2, 500))
    memory = stepper.memory
    cancel.set()
    with pytest.raises(Cancelled):
        stream.push(noise(2, 500))
    assert stepper.memory == memory


def test_output_that_is_not_finite_is_an_error_with_its_time(stub: Stubs, noise: Noise) -> None:
    stepper = stub.passing()
    stepper.separate = lambda memory, frames: (memory, frames[:, np.newaxis] * np.nan)
    with pytest.raises(ModelError, match=r"not finite near 0\.0 s: use a model with precision"):
        StepStream(stepper, Schedule(3, 2)).push(noise(2, 500))


def test_an_impossible_number_of_channels_is_refused(stub: Stubs) -> None:
    with pytest.raises(AudioError, match="1 to 64 channels; got 0"):
        StepStream(stub.passing(), Schedule(3, 2), 0)
