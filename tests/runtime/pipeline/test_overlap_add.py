"""Overlap-add: properties that hold for any division of a song into chunks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError, Cancelled, ModelError
from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import CPU
from bsmamba2.engines.protocols import Engine
from bsmamba2.pipeline.overlap_add import OverlapAdd, hop_samples, linear_window
from support.engines import StubEngine, Stubs
from support.fixtures import Noise

OVERLAPS = (0, 0.01, 0.1, 0.25, 0.5, 0.51, 0.75, 0.9, 0.999)
# Edge cases: no sample, one sample, and lengths around multiples of chunk and hop.
EDGES = sorted({max(0, n + d) for n in range(0, 193, 16) for d in (-1, 0, 1)} | {2, 3, 97, 150})


def separate(stream: OverlapAdd, audio: Audio, cuts: Sequence[int] = ()) -> Audio:
    """Pushes the audio in parts that are cut at these samples, and flushes."""
    parts = [stream.push(part) for part in np.split(audio, cuts, axis=1)]
    return np.concatenate([*parts, stream.flush()], axis=-1)


def separate_by_definition(engine: StubEngine, audio: Audio, overlap: float) -> Audio:
    """The specification: runs every chunk, adds the outputs up, and divides by the weights."""
    chunk, length = engine.manifest.chunk, audio.shape[1]
    hop = hop_samples(chunk, overlap)
    count = 1 if length <= chunk else -(-(length - chunk) // hop) + 1
    total, weights = np.zeros((1, *audio.shape)), np.zeros(length)
    for k in range(count):
        start, stop = k * hop, min(k * hop + chunk, length)
        window = linear_window(chunk, hop)
        window[: chunk // 2] = 1 if k == 0 else window[: chunk // 2]
        window[chunk // 2 :] = 1 if k == count - 1 else window[chunk // 2 :]
        stems = engine.run(audio[:, max(0, stop - chunk) : stop].copy())
        total[..., start:stop] += stems[..., start - stop :] * window[: stop - start]
        weights[start:stop] += window[: stop - start]
    return (total / weights).astype(np.float32)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_the_weights_of_neighbouring_chunks_sum_to_one(overlap: float) -> None:
    hop = hop_samples(64, overlap)
    window, shared = linear_window(64, hop), 64 - hop
    assert window.min() > 0
    np.testing.assert_array_equal(window, window[::-1])
    if 0 < shared <= 32:
        np.testing.assert_allclose(window[:shared] + window[-shared:], 1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_an_identity_engine_returns_its_input_at_every_length(
    stub: Stubs, noise: Noise, overlap: float, channels: int
) -> None:
    for length in EDGES:
        audio = noise(channels, length)
        stems = separate(OverlapAdd(stub.identity(channels=channels), overlap), audio)
        assert stems.shape == (1, channels, length)
        np.testing.assert_allclose(stems[0], audio, rtol=0, atol=1e-6)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_the_stream_equals_the_specification_bit_for_bit(
    stub: Stubs, noise: Noise, overlap: float
) -> None:
    engine = stub.restless(channels=1)
    for length in EDGES[1:]:
        audio = noise(1, length)
        np.testing.assert_array_equal(
            separate(OverlapAdd(engine, overlap), audio),
            separate_by_definition(engine, audio, overlap),
        )


@given(
    length=st.integers(1, 300),
    cuts=st.lists(st.integers(0, 300), max_size=20),
    overlap=st.floats(0, 0.99),
    chunk=st.integers(16, 100),
)
def test_output_does_not_depend_on_how_input_is_split(
    stub: Stubs, noise: Noise, length: int, cuts: list[int], overlap: float, chunk: int
) -> None:
    engine, audio = stub.restless(channels=1, chunk=chunk), noise(1, length)
    stems = separate(OverlapAdd(engine, overlap), audio, sorted(min(c, length) for c in cuts))
    np.testing.assert_array_equal(stems, separate_by_definition(engine, audio, overlap))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_an_engine_in_other_threads_returns_the_same_bits(
    stub: Stubs, noise: Noise, overlap: float, threads: int
) -> None:
    engine = stub.restless(channels=1)
    with ThreadPoolExecutor(threads) as pool:
        for length in EDGES[::5]:
            audio, threaded = noise(1, length), OverlapAdd(engine, overlap, pool=pool)
            np.testing.assert_array_equal(
                separate(threaded, audio, range(0, length, 50)),
                separate(OverlapAdd(engine, overlap), audio),
            )


def test_an_error_of_an_engine_in_another_thread_is_raised(stub: Stubs, noise: Noise) -> None:
    engine = stub.of(lambda chunk: 1 / 0, channels=1)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        separate(OverlapAdd(engine, 0.5, pool=pool), noise(1, 500), [100, 200])


def test_pushes_of_one_sample_return_the_same_bits(stub: Stubs, noise: Noise) -> None:
    engine, audio = stub.restless(channels=2), noise(2, 200)
    whole = separate(OverlapAdd(engine, 0.4), audio)
    np.testing.assert_array_equal(separate(OverlapAdd(engine, 0.4), audio, range(1, 200)), whole)


def test_every_chunk_of_a_long_song_is_whole(stub: Stubs, noise: Noise) -> None:
    engine = stub.identity(channels=1)
    separate(OverlapAdd(engine, 0.3), noise(1, 1000))
    assert set(engine.lengths) == {64}


def test_a_song_shorter_than_a_chunk_is_one_short_chunk(stub: Stubs, noise: Noise) -> None:
    engine = stub.identity(channels=1)
    separate(OverlapAdd(engine, 0.3), noise(1, 5))
    assert engine.lengths == [5]


def test_there_are_no_more_chunks_than_needed(stub: Stubs, noise: Noise) -> None:
    for length, count in ((64, 1), (65, 2), (96, 2), (97, 3)):
        engine = stub.identity(channels=1)
        separate(OverlapAdd(engine, 0.5), noise(1, length))
        assert len(engine.lengths) == count


def test_empty_input_gives_empty_output_without_a_run(stub: Stubs) -> None:
    engine = stub.identity()
    assert separate(OverlapAdd(engine, 0.5), np.zeros((2, 0), np.float32)).shape == (1, 2, 0)
    assert engine.lengths == []


def test_digital_silence_gives_silence_without_a_run(stub: Stubs) -> None:
    engine = stub.restless()
    assert not separate(OverlapAdd(engine, 0.5), np.zeros((2, 300), np.float32)).any()
    assert engine.lengths == []


@pytest.mark.parametrize("side", [0, 1])
def test_a_channel_whose_partner_is_silent_is_separated_as_mono(
    stub: Stubs, noise: Noise, side: int
) -> None:
    audio = np.zeros((2, 300), np.float32)
    audio[side] = noise(1, 300)
    stems = separate(OverlapAdd(stub.centre(), 0.5), audio)
    np.testing.assert_allclose(stems[0], audio, rtol=0, atol=1e-6)


def test_samples_are_returned_as_soon_as_no_later_chunk_can_change_them(
    stub: Stubs, noise: Noise
) -> None:
    stream = OverlapAdd(stub.identity(channels=1), 0.25)
    assert stream.push(noise(1, 64)).shape[-1] == 0
    assert stream.push(noise(1, 1)).shape[-1] == 48


def test_chunks_of_different_levels_are_joined_without_a_step(stub: Stubs) -> None:
    audio = np.full((1, 2000), 0.5, np.float32)
    levels = iter([0.0, 1.0] * 100)
    engine = stub.of(lambda chunk: next(levels) * np.ones_like(chunk)[np.newaxis], channels=1)
    stems = separate(OverlapAdd(engine, 0.5), audio)
    assert np.abs(np.diff(stems)).max() <= 1 / 32 + 1e-6


def test_memory_does_not_grow_with_the_song(stub: Stubs, noise: Noise) -> None:
    stream = OverlapAdd(stub.identity(channels=1), 0.5)
    for _ in range(1000):
        stream.push(noise(1, 64))
    assert stream._input._buffer.size < 2048


@pytest.mark.parametrize("overlap", [-0.1, 1, 2, 4.0, float("nan")])
def test_an_overlap_outside_0_to_1_is_refused_with_the_conversion_from_msst(
    stub: Stubs, overlap: float
) -> None:
    with pytest.raises(AudioError, match=r"got .*: MSST's num_overlap 2 is 0\.5"):
        OverlapAdd(stub.identity(), overlap)


def test_cancelling_stops_before_the_next_run(stub: Stubs, noise: Noise) -> None:
    engine, cancel = stub.identity(channels=1), Event()
    stream = OverlapAdd(engine, 0.5, cancel=cancel)
    stream.push(noise(1, 65))
    cancel.set()
    with pytest.raises(Cancelled):
        stream.push(noise(1, 500))
    assert len(engine.lengths) == 1


def test_output_that_is_not_finite_is_an_error_with_its_time(stub: Stubs, noise: Noise) -> None:
    engine = stub.of(lambda chunk: chunk[np.newaxis] * np.nan, channels=1)
    with pytest.raises(
        ModelError, match=r"not finite near 0\.0 s: use a model with precision fp32"
    ):
        separate(OverlapAdd(engine, 0.5), noise(1, 100))


class OverflowingEngine:
    """An identity engine that overflows above 0.9, with a twin in float32."""

    device = CPU

    def __init__(self, twin: StubEngine) -> None:
        self.twin, self.manifest = twin, twin.manifest

    def run(self, chunk: Audio) -> Audio:
        return np.where(np.abs(chunk) > 0.9, np.float32(np.inf), chunk)[np.newaxis]

    def in_float32(self) -> Engine:
        return self.twin


def test_a_chunk_that_overflows_runs_again_in_float32_and_is_counted(
    stub: Stubs, noise: Noise, caplog: pytest.LogCaptureFixture
) -> None:
    audio = np.float32(0.5) * noise(1, 1000)
    audio[0, 500] = 1
    stream = OverlapAdd(OverflowingEngine(stub.identity(channels=1)), 0)
    np.testing.assert_array_equal(separate(stream, audio)[0], audio)
    assert stream.float32_chunks == 1
    (message,) = caplog.messages
    assert "was not finite in fp32, so it ran again in float32 (1 so far)" in message


def test_output_that_is_not_finite_in_float32_either_is_an_error(stub: Stubs, noise: Noise) -> None:
    broken = stub.of(lambda chunk: chunk[np.newaxis] * np.nan, channels=1)
    with pytest.raises(ModelError, match="not finite near"):
        separate(OverlapAdd(OverflowingEngine(broken), 0), 2 * noise(1, 100))


def test_output_of_another_shape_is_an_error(stub: Stubs, noise: Noise) -> None:
    engine = stub.of(lambda chunk: chunk[np.newaxis, :, 1:], channels=1)
    with pytest.raises(ModelError, match=r"must return .* \(1, 1, 10\); got \(1, 1, 9\)"):
        separate(OverlapAdd(engine, 0.5), noise(1, 10))
