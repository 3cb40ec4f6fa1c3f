"""Overlap-add against its plain twin, and against what any joining of chunks must keep."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError, ModelError
from bsmamba2.pipeline.overlap_add import OverlapAdd, hop_samples, linear_window

OVERLAPS = (0, 0.01, 0.1, 0.25, 0.5, 0.51, 0.75, 0.9, 0.999)
# Every length where something begins or ends: no sample, one, around multiples of chunk and hop.
EDGES = sorted({max(0, n + d) for n in range(0, 193, 16) for d in (-1, 0, 1)} | {2, 3, 97, 150})


def through(stream, audio, cuts=()):
    parts = [stream.push(part) for part in np.split(audio, cuts, axis=1)]
    return np.concatenate([*parts, stream.flush()], axis=-1)


def twin(engine, audio, overlap):
    """All chunks at once: list them, add them up, divide."""
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


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_an_identity_engine_returns_its_input_at_every_length(stub, noise, overlap, channels):
    for length in EDGES:
        audio = noise(channels, length)
        stems = through(OverlapAdd(stub.identity(channels=channels), overlap), audio)
        assert stems.shape == (1, channels, length)
        np.testing.assert_allclose(stems[0], audio, rtol=0, atol=1e-6)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_the_stream_equals_the_plain_twin_bit_for_bit(stub, noise, overlap):
    engine = stub.restless(channels=1)
    for length in EDGES[1:]:
        audio = noise(1, length)
        np.testing.assert_array_equal(
            through(OverlapAdd(engine, overlap), audio), twin(engine, audio, overlap)
        )


@given(
    length=st.integers(1, 300),
    cuts=st.lists(st.integers(0, 300), max_size=20),
    overlap=st.floats(0, 0.99),
    chunk=st.integers(16, 100),
)
def test_the_output_does_not_depend_on_the_pushes(stub, noise, length, cuts, overlap, chunk):
    engine, audio = stub.restless(channels=1, chunk=chunk), noise(1, length)
    stems = through(OverlapAdd(engine, overlap), audio, sorted(min(c, length) for c in cuts))
    np.testing.assert_array_equal(stems, twin(engine, audio, overlap))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_an_engine_that_runs_ahead_gives_the_same_bits(stub, noise, overlap, threads):
    engine = stub.restless(channels=1)
    with ThreadPoolExecutor(threads) as pool:
        for length in EDGES[::5]:
            audio, ahead = noise(1, length), OverlapAdd(engine, overlap, pool=pool)
            np.testing.assert_array_equal(
                through(ahead, audio, range(0, length, 50)),
                through(OverlapAdd(engine, overlap), audio),
            )


def test_an_engine_that_fails_ahead_is_heard_of(stub, noise):
    engine = stub.of(lambda chunk: 1 / 0, channels=1)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        through(OverlapAdd(engine, 0.5, pool=pool), noise(1, 500), [100, 200])


def test_pushes_of_one_sample_give_the_same_bits(stub, noise):
    engine, audio = stub.restless(channels=2), noise(2, 200)
    whole = through(OverlapAdd(engine, 0.4), audio)
    np.testing.assert_array_equal(through(OverlapAdd(engine, 0.4), audio, range(1, 200)), whole)


def test_every_chunk_is_whole_where_the_song_is_that_long(stub, noise):
    engine = stub.identity(channels=1)
    through(OverlapAdd(engine, 0.3), noise(1, 1000))
    assert set(engine.lengths) == {64}


def test_a_song_shorter_than_a_chunk_is_one_short_chunk(stub, noise):
    engine = stub.identity(channels=1)
    through(OverlapAdd(engine, 0.3), noise(1, 5))
    assert engine.lengths == [5]


def test_there_is_no_chunk_more_than_needed(stub, noise):
    for length, count in ((64, 1), (65, 2), (96, 2), (97, 3)):
        engine = stub.identity(channels=1)
        through(OverlapAdd(engine, 0.5), noise(1, length))
        assert len(engine.lengths) == count


def test_nothing_in_is_nothing_out_and_the_engine_rests(stub):
    engine = stub.identity()
    assert through(OverlapAdd(engine, 0.5), np.zeros((2, 0), np.float32)).shape == (1, 2, 0)
    assert engine.lengths == []


def test_digital_silence_is_silence_and_the_engine_rests(stub):
    engine = stub.restless()
    assert not through(OverlapAdd(engine, 0.5), np.zeros((2, 300), np.float32)).any()
    assert engine.lengths == []


def test_samples_come_out_as_soon_as_no_later_chunk_touches_them(stub, noise):
    stream = OverlapAdd(stub.identity(channels=1), 0.25)
    assert stream.push(noise(1, 64)).shape[-1] == 0
    assert stream.push(noise(1, 1)).shape[-1] == 48


def test_a_constant_between_jumping_chunks_never_steps_by_more_than_the_fade(stub):
    audio = np.full((1, 2000), 0.5, np.float32)
    engine = stub.of(lambda chunk: next(levels) * np.ones_like(chunk)[np.newaxis], channels=1)
    levels = iter([0.0, 1.0] * 100)
    stems = through(OverlapAdd(engine, 0.5), audio)
    assert np.abs(np.diff(stems)).max() <= 1 / 32 + 1e-6


def test_memory_does_not_grow_with_the_song(stub, noise):
    stream = OverlapAdd(stub.identity(channels=1), 0.5)
    for _ in range(1000):
        stream.push(noise(1, 64))
    assert stream._input._buffer.size < 2048


@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.75])
def test_a_window_of_the_caller_still_sums_to_one(stub, noise, overlap):
    audio, window = noise(1, 333), np.hanning(66)[1:-1]
    stems = through(OverlapAdd(stub.identity(channels=1), overlap, window), audio)
    np.testing.assert_allclose(stems[0], audio, rtol=0, atol=1e-6)


@pytest.mark.parametrize("window", [np.ones(63), np.hanning(64), np.full(64, np.nan)])
def test_a_window_of_another_length_or_with_a_zero_is_refused(stub, window):
    with pytest.raises(AudioError, match=r"window must be \(64,\) weights above 0"):
        OverlapAdd(stub.identity(), 0.5, window)


@pytest.mark.parametrize("overlap", [-0.1, 1, 2, 4.0, float("nan")])
def test_an_overlap_that_is_no_fraction_names_the_one_that_is_meant(stub, overlap):
    with pytest.raises(AudioError, match=r"MSST's num_overlap 2 is 0\.5"):
        OverlapAdd(stub.identity(), overlap)


def test_an_output_that_is_not_finite_is_an_error_with_its_time(stub, noise):
    engine = stub.of(lambda chunk: chunk[np.newaxis] * np.nan, channels=1)
    with pytest.raises(ModelError, match=r"not finite near 0\.0 s: use a model of float32"):
        through(OverlapAdd(engine, 0.5), noise(1, 100))


class Reduced:
    """Overflows above 0.9, and holds a float32 engine against that."""

    def __init__(self, exact):
        self.exact, self.manifest, self.device = exact, exact.manifest, "cpu"

    def run(self, chunk):
        return np.where(np.abs(chunk) > 0.9, np.inf, chunk)[np.newaxis].astype(np.float32)

    def in_float32(self):
        return self.exact


def test_a_chunk_that_overflows_is_run_again_in_float32_and_counted(stub, noise, caplog):
    audio = 0.5 * noise(1, 1000)
    audio[0, 500] = 1
    stream = OverlapAdd(Reduced(stub.identity(channels=1)), 0)
    np.testing.assert_array_equal(through(stream, audio)[0], audio)
    assert stream.float32_chunks == 1
    (record,) = caplog.records
    assert "non-finite in fp32 and was run again in float32 (1 so far)" in record.message


def test_what_float32_cannot_hold_either_is_an_error(stub, noise):
    broken = stub.of(lambda chunk: chunk[np.newaxis] * np.nan, channels=1)
    with pytest.raises(ModelError, match="not finite near"):
        through(OverlapAdd(Reduced(broken), 0), 2 * noise(1, 100))


def test_an_output_of_another_shape_is_an_error(stub, noise):
    engine = stub.of(lambda chunk: chunk[np.newaxis, :, 1:], channels=1)
    with pytest.raises(ModelError, match=r"must return .* \(1, 1, 10\); it returned \(1, 1, 9\)"):
        through(OverlapAdd(engine, 0.5), noise(1, 10))
