"""The speakers of a song's channels are those of its stems, in every format that can say so."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import Separator
from bsmamba2.files.native_chunks import read_native_chunks
from bsmamba2.files.song_file import SongFile
from bsmamba2.files.speakers import (
    IMPLIED_MASKS,
    OGG_ORDER,
    SPEAKERS,
    mask_of,
    mask_of_comment,
    to_ogg_order,
    to_wav_order,
)
from bsmamba2.files.tags import read_tags
from support.engines import StubEngine, Stubs
from support.files import integers, read_song
from support.fixtures import WriteSong

MASKS = [0x3F, 0x60F, 0x63F, 0xFF, 0x0, 0x3, 0x4, 0x33, 0x107, 0x5003F]
"""5.1, 5.1(side), 7.1, 7.1(wide), none, stereo, mono, quad, 4.0, a layout without a name."""


def with_mask(path: Path, mask: int, format: str = "WAVEX") -> int:
    """Writes a song with a mask; the number of its channels."""
    channels = mask.bit_count() or 6
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (500, channels))
    soundfile.write(path, noise, 44100, "PCM_16", format=format)
    content = bytearray(path.read_bytes())
    at = content.index(b"fmt ") + 28
    content[at : at + 4] = mask.to_bytes(4, "little")
    path.write_bytes(content)
    return channels


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("source", ["WAVEX", "RF64"])
def test_a_wav_keeps_its_mask(stub: Stubs, tmp_path: Path, mask: int, source: str) -> None:
    path = tmp_path / "song.wav"
    with_mask(path, mask, source)
    paths = Separator(stub.lower_half_band()).separate_file(path)
    assert {read_native_chunks(out).speaker_mask for out in paths.values()} == {mask}
    np.testing.assert_array_equal(sum(map(integers, paths.values())), integers(path))


@pytest.mark.parametrize("mask", [0x3F, 0x60F, 0x63F, 0xFF, 0x33, 0x107])
def test_flac_states_the_mask_in_its_comment(stub: Stubs, tmp_path: Path, mask: int) -> None:
    path = tmp_path / "song.wav"
    with_mask(path, mask)
    separator = Separator(stub.half())
    flac = separator.separate_file(path, format="flac")["vocals"]
    stated = mask_of_comment(read_tags(flac).fields)
    assert stated == mask
    again = separator.separate_file(flac, format="wav")["vocals"]
    assert read_native_chunks(again).speaker_mask == mask


def test_a_stem_that_becomes_float_keeps_the_mask(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    with_mask(path, 0x60F)
    loud = StubEngine(lambda chunk: 30 * chunk[np.newaxis])
    vocals = Separator(loud).separate_file(path, format="flac")["vocals"]
    assert soundfile.info(vocals).subtype == "FLOAT"
    assert read_native_chunks(vocals).speaker_mask == 0x60F


@pytest.mark.parametrize("channels", OGG_ORDER)
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_the_channels_of_ogg_keep_their_speakers(
    stub: Stubs, tmp_path: Path, channels: int, subtype: str
) -> None:
    av = pytest.importorskip("av")
    path, t = tmp_path / "song.wav", np.arange(48000) / 48000
    levels = 0.05 * np.arange(1, channels + 1)
    soundfile.write(path, levels * np.sin(2 * np.pi * 60 * t)[:, np.newaxis], 48000)
    engine = StubEngine(lambda chunk: chunk[np.newaxis])
    out = Separator(engine).separate_file(path, format="ogg", subtype=subtype)["vocals"]
    rms = np.sqrt(2) * read_song(out)[:, 9600:38400].std(axis=1)
    np.testing.assert_allclose(rms, levels, rtol=0.2)
    with av.open(str(out)) as container:  # FFmpeg too puts them into the order of the mask
        convert = av.AudioResampler("dbl")
        parts = [part for f in container.decode(audio=0) for part in convert.resample(f)]
        frames = np.concatenate([part.to_ndarray().reshape(-1, channels) for part in parts])
    decoded = np.sqrt(2) * frames[9600:38400].std(axis=0)
    np.testing.assert_allclose(decoded, levels, rtol=0.2)  # Vorbis treats low frequencies apart


@pytest.mark.parametrize("channels", OGG_ORDER)
def test_ogg_of_several_channels_states_the_layout_that_it_implies(
    song: WriteSong, channels: int
) -> None:
    with SongFile(song("song.ogg", channels=channels)) as file:
        assert file.speaker_mask == IMPLIED_MASKS[channels]


@pytest.mark.parametrize("channels", range(1, 12))
def test_the_two_orders_are_inverse(channels: int) -> None:
    order = np.arange(channels)
    np.testing.assert_array_equal(order[to_wav_order(channels)][to_ogg_order(channels)], order)


@given(st.lists(st.sampled_from([*SPEAKERS, "NONE", "LS"])))
def test_a_mask_has_a_bit_for_each_speaker(names: list[str]) -> None:
    mask = mask_of(names)
    known = len(set(names)) == len(names) and set(names) <= set(SPEAKERS)
    assert (mask is not None) == known
    assert mask is None or mask.bit_count() == len(names)


@pytest.mark.parametrize("value", ["", "x", "-1", "0x1FFFFFFFFF"])
def test_a_comment_that_is_no_mask_is_ignored(value: str) -> None:
    assert mask_of_comment({"waveformatextensible_channel_mask": [value]}) is None


def test_a_wav_without_a_mask_gets_none(stub: Stubs, song: WriteSong) -> None:
    path = song("song.wav", "PCM_16", channels=6, samples=500)
    out = Separator(stub.half()).separate_file(path)["vocals"]
    assert out.read_bytes()[20:22] == b"\x01\x00"
    assert io.BytesIO(out.read_bytes()).read(4) == b"RIFF"
