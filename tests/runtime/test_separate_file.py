"""From files to files: stems sum to the song, and an interrupted run leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsmamba2 import AudioError, Cancelled, ModelError, Separator
from bsmamba2.audio.array import Audio
from support.engines import SIX, StubEngine, Stubs
from support.files import floats, integers, names
from support.fixtures import WriteSong


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("song.wav", "PCM_U8"),
        ("song.wav", "PCM_16"),
        ("song.wav", "PCM_24"),
        ("song.wav", "PCM_32"),
        ("song.flac", "PCM_S8"),
        ("song.flac", "PCM_16"),
        ("song.flac", "PCM_24"),
        ("song.aiff", "PCM_24"),
        ("song.w64", "PCM_16"),
        ("song.rf64", "PCM_24"),
        ("song.caf", "ALAC_16"),
        ("song.au", "PCM_16"),
    ],
)
def test_integer_stems_keep_their_format_and_sum_exactly_to_the_song(
    stub: Stubs, song: WriteSong, name: str, subtype: str, rate: int
) -> None:
    path = song(name, subtype, rate=rate, samples=5000)
    paths = Separator(stub.lower_half_band()).separate_file(path)
    np.testing.assert_array_equal(sum(map(integers, paths.values())), integers(path))
    for stem, out in paths.items():
        assert out == path.with_name(f"song_{stem}{path.suffix}")
        assert (soundfile.info(out).subtype, soundfile.info(out).samplerate) == (subtype, rate)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_six_stems_and_their_residual_sum_exactly_to_the_song(
    stub: Stubs, song: WriteSong, subtype: str
) -> None:
    path = song("song.wav", subtype)
    paths = Separator(stub.six_shares()).separate_file(path)
    assert list(paths) == [*SIX, "residual"]
    np.testing.assert_array_equal(sum(map(integers, paths.values())), integers(path))


def test_the_instrumental_of_six_stems_completes_the_vocals_to_the_bit(
    stub: Stubs, song: WriteSong
) -> None:
    path = song("song.wav", "PCM_16")
    paths = Separator(stub.six_shares()).separate_file(path, stems=["vocals", "instrumental"])
    assert list(paths) == ["vocals", "instrumental"]
    np.testing.assert_array_equal(sum(map(integers, paths.values())), integers(path))


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_float_stems_keep_their_format_and_sum_to_the_song_within_1e_6(
    stub: Stubs, song: WriteSong, subtype: str
) -> None:
    path = song("song.wav", subtype, samples=5000, gain=3)
    paths = Separator(stub.lower_half_band()).separate_file(path)
    np.testing.assert_allclose(sum(map(floats, paths.values())), floats(path), rtol=0, atol=1e-6)
    assert soundfile.info(paths["vocals"]).subtype == subtype


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gain=st.floats(-1e6, 1e6), bits=st.sampled_from([8, 16, 24]), length=st.integers(1, 300))
def test_stems_of_any_level_sum_to_the_song(
    song: WriteSong, gain: float, bits: int, length: int
) -> None:
    path = song(subtype=f"PCM_{'U' * (bits == 8)}{bits}", samples=length, gain=0.9)
    engine = StubEngine(lambda chunk: np.float32(gain) * chunk[np.newaxis])
    paths = Separator(engine).separate_file(path, overwrite=True)
    tolerance = 2e-7 * max(1, abs(gain))
    np.testing.assert_allclose(sum(map(floats, paths.values())), floats(path), atol=tolerance)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "FLOAT", "DOUBLE"])
def test_a_song_of_one_sample_is_separated(stub: Stubs, song: WriteSong, subtype: str) -> None:
    path = song(subtype=subtype, samples=1)
    paths = Separator(stub.half()).separate_file(path)
    assert [soundfile.info(out).frames for out in paths.values()] == [1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "wma"}, "format must be one of wav, .*, flac, .*; got 'wma'"),
        ({"format": "raw"}, "format must be"),
        ({"format": "flac", "subtype": "float"}, "subtype for FLAC must be one of .*PCM_24"),
        ({"clip": "wrap"}, "clip must be one of float, clip, error; got 'wrap'"),
        ({"overlap": 4}, r"MSST's num_overlap 2 is 0\.5"),
        ({"stems": ["drums"]}, "stem must be one of vocals, instrumental; got 'drums'"),
    ],
)
def test_impossible_options_are_refused_before_a_file_is_written(
    stub: Stubs, song: WriteSong, options: dict[str, Any], message: str
) -> None:
    path = song()
    with pytest.raises((AudioError, ModelError), match=message):
        Separator(stub.half()).separate_file(path, **options)
    assert names(path.parent) == ["song.wav"]


def fail_at(seconds: float, error: BaseException) -> Callable[[float, float], None]:
    def progress(done: float, total: float) -> None:
        if done > seconds:
            raise error

    return progress


@pytest.mark.parametrize("error", [Cancelled("enough"), KeyboardInterrupt(), ValueError("bug")])
@pytest.mark.parametrize("name", ["song.wav", "song.flac"])
def test_an_interrupted_run_leaves_no_file(
    stub: Stubs, song: WriteSong, name: str, error: BaseException
) -> None:
    path = song(name, samples=300_000)
    with pytest.raises(type(error)):
        Separator(stub.half()).separate_file(path, progress=fail_at(2, error))
    assert names(path.parent) == [name]


def test_an_engine_that_fails_midway_leaves_no_file(song: WriteSong) -> None:
    def fail_later(chunk: Audio) -> Audio:
        chunks.append(chunk)
        if len(chunks) > 100:
            raise RuntimeError("the device is gone")
        return chunk[np.newaxis]

    chunks: list[Audio] = []
    path = song()
    with pytest.raises(RuntimeError, match="the device is gone"):
        Separator(StubEngine(fail_later)).separate_file(path)
    assert names(path.parent) == ["song.wav"]


def test_two_songs_can_be_separated_concurrently(stub: Stubs, song: WriteSong) -> None:
    paths = [song(f"{k}.wav", samples=100_000) for k in range(2)]
    separator = Separator(stub.half())
    threads = [threading.Thread(target=separator.separate_file, args=[path]) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(paths[0].parent)) == 6
