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

import bsmamba2
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@pytest.mark.parametrize("name", ["song.wav", "song.flac"])
def test_the_stems_of_an_excerpt_sum_to_that_part_of_the_song(
    stub: Stubs, song: WriteSong, name: str
) -> None:
    path = song(name, "PCM_16", samples=100_000)
    separator = Separator(stub.lower_half_band())
    paths = separator.separate_file(path, start_s=0.5, duration_s=1.25)
    assert paths["vocals"].name == f"song_vocals_0.5s-1.75s{path.suffix}"
    expected = integers(path)[22050 : 22050 + 55125]
    np.testing.assert_array_equal(sum(map(integers, paths.values())), expected)


@pytest.mark.parametrize(("start_s", "label"), [(0, "0s-end"), (1.75, "1.75s-end")])
@pytest.mark.parametrize("name", ["song.wav", "song.mp3"])
def test_an_excerpt_beyond_the_end_is_named_by_the_end(
    stub: Stubs, song: WriteSong, name: str, start_s: float, label: str
) -> None:
    path = song(name, None, samples=2 * 44100)
    options: dict[str, Any] = {"start_s": start_s, "duration_s": 60, "report": True, "resume": True}
    paths = Separator(stub.half()).separate_file(path, **options)
    assert paths["vocals"].stem == f"song_vocals_{label}"
    assert f">{label}<" in (path.parent / f"song_report_{label}.html").read_text()
    assert Separator(stub.half()).separate_file(path, **options) == paths


def test_arrays_of_an_excerpt_are_that_part_of_the_song(song: WriteSong) -> None:
    path = song(samples=44100)
    stems = bsmamba2.separate(path, device="cpu", start_s=0.25, duration_s=0.125)
    expected = floats(path).T[:, 11025 : round(0.375 * 44100)]
    np.testing.assert_allclose(stems["vocals"] + stems["instrumental"], expected, atol=1e-6)


def test_a_preview_neither_replaces_the_song_nor_counts_as_done(
    stub: Stubs, song: WriteSong
) -> None:
    path, engine = song(), stub.lower_half_band()
    separator = Separator(engine)
    whole = separator.separate_file(path, record=True)
    part = separator.separate_file(path, duration_s=0.5, resume=True)
    assert not set(whole.values()) & set(part.values())
    runs = len(engine.lengths)
    assert separator.separate_file(path, resume=True) == whole
    assert separator.separate_file(path, duration_s=0.5, resume=True) == part
    assert len(engine.lengths) == runs
    with pytest.raises(AudioError, match="exists already"):
        separator.separate_file(path, duration_s=0.5)


def test_every_template_tells_an_excerpt_from_the_song(stub: Stubs, song: WriteSong) -> None:
    separator, path = Separator(stub.half()), song()
    options: dict[str, Any] = {"stems": ["vocals"], "template": "all/take.{ext}"}
    whole = separator.separate_file(path, **options)
    part = separator.separate_file(path, **options, start_s=0.5, overwrite=True)
    assert [p.name for p in (*whole.values(), *part.values())] == ["take.wav", "take_0.5s-end.wav"]


def test_a_mix_of_all_stems_is_the_song_bit_for_bit(stub: Stubs, song: WriteSong) -> None:
    path = song("song.wav", "PCM_16")
    separator = Separator(stub.lower_half_band())
    paths = separator.separate_file(path, mix={"vocals": 0, "other": 0})
    assert list(paths) == ["mix"]
    assert paths["mix"].name == "song_mix.wav"
    np.testing.assert_array_equal(integers(paths["mix"]), integers(path))


def test_a_mix_has_the_stems_at_their_gains(stub: Stubs, song: WriteSong) -> None:
    path, separator = song("song.wav", "FLOAT"), Separator(stub.six_shares())
    stems = {name: floats(path) for name, path in separator.separate_file(path).items()}
    mixed = separator.separate_file(path, mix={"drums": -6, "vocals": 3})["mix"]
    expected = 10 ** (-6 / 20) * stems["drums"] + 10 ** (3 / 20) * stems["vocals"]
    np.testing.assert_allclose(floats(mixed), expected, atol=1e-6)
    # The instrumental is derived, and may be mixed too.
    other = separator.separate_file(path, mix={"instrumental": 0, "vocals": 0}, template="b.{ext}")[
        "mix"
    ]
    np.testing.assert_allclose(floats(other), floats(path), atol=1e-6)


@pytest.mark.parametrize("clip", ["float", "clip", "error"])
def test_a_mix_beyond_full_scale_is_treated_as_a_stem_is(
    stub: Stubs, song: WriteSong, clip: Any
) -> None:
    path, separator = song(gain=0.9, subtype="PCM_16"), Separator(stub.half())
    options: dict[str, Any] = {"mix": {"vocals": 20}, "clip": clip}
    if clip == "error":
        with pytest.raises(AudioError, match="song_mix.wav exceeds full scale"):
            separator.separate_file(path, **options)
        return
    peak = np.abs(floats(separator.separate_file(path, **options)["mix"])).max()
    assert (peak > 4) == (clip == "float")


def test_a_mix_and_stems_exclude_each_other(stub: Stubs, song: WriteSong) -> None:
    with pytest.raises(AudioError, match="stems must be None with a mix"):
        Separator(stub.half()).separate_file(song(), stems=["vocals"], mix={"vocals": 0})
