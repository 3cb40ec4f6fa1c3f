"""Stems of a WAV or AIFF keep the chunks that describe the song, and nothing about its samples."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsmamba2 import Separator
from bsmamba2.files.chunks import ChunkFile
from bsmamba2.files.native_chunks import MAX_BYTES, NativeChunks, read_native_chunks
from bsmamba2.files.tags import read_tags
from support.engines import StubEngine, Stubs
from support.files import integers
from support.fixtures import WriteSong

TIME_REFERENCE = 123_456_789


def info(**values: bytes) -> bytes:
    parts = b"".join(
        name.encode() + len(value).to_bytes(4, "little") + value + bytes(len(value) % 2)
        for name, value in values.items()
    )
    return b"INFO" + parts


def bext(version: int = 2) -> bytes:
    return (
        b"take 7".ljust(338, b"\0")
        + TIME_REFERENCE.to_bytes(8, "little")
        + version.to_bytes(2, "little")
        + b"U" * 64
        + b"LOUDNESS!!"
        + bytes(180)
        + b"A=PCM\r\n"
    )


def add_chunk(path: Path, id: bytes, content: bytes, order: str = "little") -> None:
    whole = path.read_bytes() + id + len(content).to_bytes(4, order) + content  # type: ignore[arg-type]
    whole += bytes(len(whole) % 2)
    path.write_bytes(whole[:4] + (len(whole) - 8).to_bytes(4, order) + whole[8:])  # type: ignore[arg-type]


def chunks_of(path: Path) -> dict[bytes, bytes]:
    with path.open("rb") as stream:
        file = ChunkFile(stream, path.stat().st_size)
        last = file.chunks[-1]
        assert 0 <= path.stat().st_size - last.start - last.size <= 1
        return {chunk.id: file.read(chunk, MAX_BYTES) for chunk in file.chunks}


INFO = info(INAM=b"Title\0", IART="Ängel".encode() + b"\0", ICMT=b"caf\xe9\0", IPRT=b"7\0")


@pytest.mark.parametrize("format", ["wav", "rf64", "wavex"])
def test_a_wav_keeps_its_info_and_time_reference(stub: Stubs, song: WriteSong, format: str) -> None:
    path = song("song.wav", "PCM_16", samples=501, channels=1)
    add_chunk(path, b"LIST", INFO)
    add_chunk(path, b"bext", bext())
    add_chunk(path, b"cue ", bytes(4))
    paths = Separator(stub.lower_half_band(channels=1)).separate_file(path, format=format)
    for out in paths.values():
        found = chunks_of(out)
        assert (found[b"LIST"], found[b"cue "]) == (INFO, bytes(4))
        assert found[b"bext"][:348] == bext()[:348]
        assert b"id3 " not in found
    np.testing.assert_array_equal(sum(map(integers, paths.values())), integers(path))


@pytest.mark.parametrize(("version", "loudness"), [(2, b"\xff\x7f" * 5), (1, b"LOUDNESS!!")])
def test_what_identifies_and_measures_the_song_is_cleared(
    stub: Stubs, song: WriteSong, version: int, loudness: bytes
) -> None:
    path = song("song.wav", samples=500)
    add_chunk(path, b"bext", bext(version))
    found = chunks_of(Separator(stub.half()).separate_file(path)["vocals"])[b"bext"]
    assert (found[348:412], found[412:422]) == (bytes(64), loudness)
    assert found[422:] == bext()[422:]


@pytest.mark.parametrize("format", ["flac", "mp3", "ogg", "aiff"])
def test_other_formats_get_the_text_as_tags(stub: Stubs, song: WriteSong, format: str) -> None:
    path = song("song.wav", samples=5000)
    add_chunk(path, b"LIST", INFO)
    add_chunk(path, b"bext", bext())
    fields = read_tags(Separator(stub.half()).separate_file(path, format=format)["vocals"]).fields
    assert fields == {
        "title": ["Title"], "artist": ["Ängel"], "comment": ["café"], "tracknumber": ["7"],
        "time_reference": [str(TIME_REFERENCE)],
    }  # fmt: skip


def test_an_aiff_keeps_its_text(stub: Stubs, song: WriteSong) -> None:
    path = song("song.aiff", "PCM_16", samples=500)
    add_chunk(path, b"NAME", b"Title", "big")
    add_chunk(path, b"ANNO", b"odd", "big")
    paths = Separator(stub.half()).separate_file(path)
    assert chunks_of(paths["vocals"])[b"NAME"] == b"Title"
    flac = Separator(stub.half()).separate_file(path, format="flac")["vocals"]
    assert read_tags(flac).fields == {"title": ["Title"], "comment": ["odd"]}


def test_a_chunk_that_is_too_large_is_not_copied(stub: Stubs, song: WriteSong) -> None:
    path = song("song.wav", samples=500)
    add_chunk(path, b"iXML", bytes(MAX_BYTES + 1))
    add_chunk(path, b"LIST", INFO)
    assert [id for id, _ in read_native_chunks(path).chunks] == [b"LIST"]
    out = Separator(stub.half()).separate_file(path)["vocals"]
    assert out.stat().st_size < 20_000


@pytest.mark.parametrize("name", ["song.wav", "song.aiff"])
def test_float_stems_are_the_same_bytes_at_any_time(
    stub: Stubs, song: WriteSong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, separator = song(name, "FLOAT", samples=500), Separator(stub.half())
    first = separator.separate_file(path, tmp_path / "1")["vocals"]
    time.sleep(1.1)  # libsndfile's stamp counts seconds
    assert separator.separate_file(path, tmp_path / "2")["vocals"].read_bytes() == (
        first.read_bytes()
    )


def test_a_clipped_flac_becomes_the_same_float_wav_at_any_time(song: WriteSong) -> None:
    path = song("song.flac", "PCM_16", samples=500, gain=0.9)
    separator = Separator(StubEngine(lambda chunk: 3 * chunk[np.newaxis]))
    out = separator.separate_file(path)["vocals"]
    assert chunks_of(out)[b"PEAK"][4:8] == bytes(4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_list_has_fields(tmp_path: Path, content: bytes) -> None:
    chunks = NativeChunks(b"RIFF", ((b"LIST", b"INFO" + content), (b"bext", content)))
    assert isinstance(chunks.fields, dict)


def test_a_song_without_chunks_has_none(song: WriteSong) -> None:
    assert read_native_chunks(song("song.flac")) == NativeChunks()


def test_soundfile_reads_a_stem_with_chunks(stub: Stubs, song: WriteSong) -> None:
    path = song("song.wav", samples=500)
    add_chunk(path, b"LIST", INFO)
    out = Separator(stub.half()).separate_file(path)["vocals"]
    with soundfile.SoundFile(out) as file:
        assert (file.title, file.frames) == ("Title", 500)


def test_a_caf_keeps_its_layout_of_channels(stub: Stubs, song: WriteSong) -> None:
    path, layout = song("song.caf", "PCM_16", channels=6, samples=500), bytes(range(12))
    with path.open("ab") as file:
        file.write(b"chan" + (12).to_bytes(8) + layout)
    paths = Separator(stub.lower_half_band()).separate_file(path)
    assert chunks_of(paths["vocals"])[b"chan"] == layout
    np.testing.assert_array_equal(sum(map(integers, paths.values())), integers(path))


def test_a_wav_without_tags_whose_size_was_never_written_brings_no_warning(
    song: WriteSong, caplog: pytest.LogCaptureFixture
) -> None:
    path = song("song.wav", samples=500)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(4) + content[8:])
    assert not read_tags(path)
    assert caplog.messages == []


def test_chunks_without_text_are_kept_too(stub: Stubs, song: WriteSong) -> None:
    path = song("song.wav", samples=500)
    add_chunk(path, b"cue ", bytes(4))
    assert chunks_of(Separator(stub.half()).separate_file(path)["vocals"])[b"cue "] == bytes(4)


def test_an_excerpt_is_placed_by_its_own_start_and_loses_positions_in_the_song() -> None:
    info_list = info(INAM=b"Song")
    native = NativeChunks(
        b"RIFF", ((b"bext", bext()), (b"cue ", b"x" * 28), (b"LIST", info_list), (b"LIST", b"adtl"))
    )
    kept = native.for_excerpt(44100)
    assert [id for id, _ in kept.chunks] == [b"bext", b"LIST"]
    assert kept.fields["time_reference"] == [str(TIME_REFERENCE + 44100)]
    assert kept.fields["title"] == ["Song"]
