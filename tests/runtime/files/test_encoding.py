"""Stems keep the song's encoding if it is lossless, and otherwise get 24-bit FLAC."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError, Separator
from bsmamba2.batch.plan import OutputOptions
from bsmamba2.files.encoding import (
    CONTAINERS,
    SIZED_IN_32_BITS,
    Encoding,
    choose,
    require_clip,
    require_format,
    require_support,
)
from support.engines import Stubs
from support.files import integers
from support.fixtures import WriteSong


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("song.mp3", None), ("song.ogg", None), ("song.wav", "ULAW"), ("song.voc", "PCM_16")],
)
def test_a_lossy_or_rare_song_gives_24_bit_flac(
    stub: Stubs, song: WriteSong, name: str, subtype: str | None
) -> None:
    paths = Separator(stub.half()).separate_file(song(name, subtype, samples=5000))
    assert [path.name for path in paths.values()] == ["song_vocals.flac", "song_instrumental.flac"]
    assert soundfile.info(paths["vocals"]).subtype == "PCM_24"


@pytest.mark.parametrize(
    ("requested", "format", "subtype"),
    [
        ({"format": "flac"}, "FLAC", "PCM_16"),
        ({"format": "AIFF", "subtype": "pcm_24"}, "AIFF", "PCM_24"),
        ({"subtype": "float"}, "WAV", "FLOAT"),
        ({"format": "ogg"}, "OGG", "VORBIS"),
    ],
)
def test_the_requested_format_and_subtype_are_written(
    stub: Stubs, song: WriteSong, requested: dict[str, str], format: str, subtype: str
) -> None:
    path = song(subtype="PCM_16", samples=500)
    paths = Separator(stub.half()).separate_file(path, **requested)  # type: ignore[arg-type]
    info = soundfile.info(paths["vocals"])
    assert (info.format, info.subtype) == (format, subtype)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("song", ".wav"), ("song.flac", ".wav"), ("song.WAVE", ".WAVE"), ("song.v2", ".wav")],
)
def test_stems_have_a_suffix_of_their_container(
    stub: Stubs, song: WriteSong, name: str, suffix: str
) -> None:
    path = song("x.wav", samples=500)
    path = path.rename(path.with_name(name))
    assert Separator(stub.half()).separate_file(path)["vocals"].suffix == suffix


@pytest.mark.parametrize("container", CONTAINERS)
def test_libsndfile_writes_what_is_chosen_for_every_container(container: str) -> None:
    encoding = choose(None, container.lower(), None)
    assert (encoding.format, encoding.suffix) == (container, CONTAINERS[container])
    assert soundfile.check_format(encoding.format, encoding.subtype)
    assert encoding.as_float().subtype == "FLOAT"
    assert soundfile.check_format(encoding.as_float().format, "FLOAT")


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_S8", "PCM_16", "PCM_24"])
def test_a_step_is_the_distance_of_adjacent_samples(subtype: str) -> None:
    encoding = Encoding("WAV", subtype, ".wav")
    assert encoding.bits is not None
    assert encoding.step * 2**encoding.bits == 2  # steps from -1 to 1


def test_unknown_arguments_are_refused_with_the_known_ones() -> None:
    with pytest.raises(AudioError, match="format must be one of wav, .*, flac, .*; got 'wma'"):
        require_format("wma")
    with pytest.raises(AudioError, match="clip must be one of float, clip, error; got 'wrap'"):
        require_clip("wrap")
    with pytest.raises(AudioError, match="subtype for FLAC must be one of .*PCM_24.*; got 'float'"):
        choose(None, "flac", "float")


@pytest.mark.parametrize("name", ["song.wav", "song.aiff", "song.au"])
@pytest.mark.parametrize("length_is_known", [True, False])
def test_a_song_too_long_for_its_header_gives_rf64(
    stub: Stubs,
    song: WriteSong,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    length_is_known: bool,
) -> None:
    path = song(name, "PCM_16", samples=100_000)
    monkeypatch.setattr("bsmamba2.files.encoding.MAX_BYTES", 300_000)
    if not length_is_known:  # a stream's header may state fewer samples than the stream has
        monkeypatch.setattr("bsmamba2.files.song_file.SongFile.samples", 10)
    paths = Separator(stub.lower_half_band()).separate_file(path)
    assert {(out.suffix, soundfile.info(out).format) for out in paths.values()} == {
        (".wav", "RF64")
    }
    np.testing.assert_array_equal(sum(map(integers, paths.values())), integers(path))


@given(st.integers(0, 1 << 34), st.integers(1, 64), st.sampled_from(list(CONTAINERS)))
def test_no_header_states_more_than_it_can(samples: int, channels: int, container: str) -> None:
    encoding = Encoding(container, "PCM_24", "").for_length(samples, channels)
    total_bytes = samples * channels * encoding.sample_bytes
    assert encoding.format not in SIZED_IN_32_BITS or total_bytes < 1 << 32


def test_wav_becomes_rf64_beyond_four_gigabytes() -> None:
    wav = Encoding("WAV", "PCM_24", ".wav")
    assert wav.for_length(10**8, 2) == wav
    assert wav.for_length(8 * 10**8, 2) == Encoding("RF64", "PCM_24", ".wav")
    assert Encoding("W64", "DOUBLE", ".w64").for_length(10**12, 2).format == "W64"


@pytest.mark.parametrize(
    ("options", "rate", "channels", "message"),
    [
        (
            {"format": "ogg", "subtype": "opus"},
            44100,
            2,
            "hold 2 channels at 44100 Hz: Opus",
        ),
        ({"format": "ogg"}, 384000, 2, "OGG VORBIS cannot hold 2 channels at 384000 Hz"),
        ({"format": "mp3"}, 96000, 2, "MP3 MPEG_LAYER_III cannot hold 2 channels at 96000 Hz"),
        ({"format": "mp3"}, 44100, 3, "MP3 MPEG_LAYER_III cannot hold 3 channels"),
        ({"format": "flac"}, 44100, 9, "FLAC PCM_16 cannot hold 9 channels at 44100 Hz: choose"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_while_planning(
    stub: Stubs, song: WriteSong, options: dict[str, str], rate: int, channels: int, message: str
) -> None:
    path = song(subtype="PCM_16", rate=rate, channels=channels, samples=50)
    with pytest.raises(AudioError, match=message):
        OutputOptions(**options).plan(path, None, stub.half().manifest)  # type: ignore[arg-type]


def test_a_song_that_flac_cannot_hold_gives_wav_where_nothing_was_asked(
    stub: Stubs, song: WriteSong
) -> None:
    path = song("song.wav", "ULAW", channels=9, samples=50)
    plan = OutputOptions().plan(path, None, stub.half().manifest)
    assert (plan.encoding.format, plan.encoding.subtype) == ("WAV", "PCM_24")


@pytest.mark.parametrize("rate", [8000, 44100, 200_000])
def test_vorbis_is_written_at_every_rate_that_it_has(rate: int) -> None:
    require_support(choose(None, "ogg", None), rate, 2)
