"""The structure of a file shows missing bytes, damaged pages, and parts that libsndfile skips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsmamba2.files.structure import Structure, read_structure
from support.fixtures import WriteSong

KINDS = {
    "a.wav": "PCM_16", "a.aiff": "PCM_16", "a.au": "PCM_16", "a.w64": "PCM_16", "a.rf64": "PCM_16",
    "a.caf": "PCM_16", "a.ogg": None, "a.mp3": None,
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_file_shows_nothing_missing_and_is_left_to_libsndfile(
    song: WriteSong, name: str
) -> None:
    found = read_structure(song(name, KINDS[name], samples=30_000))
    assert (found.missing, found.doubt, found.beyond_libsndfile) == ("", "", "")
    assert found.seconds is None or found.seconds == pytest.approx(30_000 / 44100, abs=0.1)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_part_of_a_file_shows_that_bytes_are_missing(
    song: WriteSong, name: str, keep: float
) -> None:
    path = song(name, KINDS[name], samples=30_000)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert read_structure(path).missing


def test_a_size_that_is_wrong_by_a_header_is_no_missing_byte(song: WriteSong) -> None:
    path = song("a.wav", "PCM_16", samples=500)
    content = bytearray(path.read_bytes())
    content[40:44] = len(content).to_bytes(4, "little")
    path.write_bytes(content)
    assert read_structure(path) == Structure()


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3"])
def test_parts_that_were_joined_are_beyond_libsndfile(song: WriteSong, name: str) -> None:
    path = song(name, samples=30_000)
    path.write_bytes(3 * path.read_bytes())
    found = read_structure(path)
    assert "3 parts, and libsndfile reads only the first" in found.beyond_libsndfile
    assert found.seconds == pytest.approx(3 * 30_000 / 44100, abs=0.25)


def test_an_mp3_that_goes_on_behind_its_stated_end_is_beyond_libsndfile(song: WriteSong) -> None:
    path = song("a.mp3", samples=30_000)
    content = path.read_bytes()
    path.write_bytes(content + content[len(content) // 2 :])
    assert "longer than its header states" in read_structure(path).beyond_libsndfile


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_damaged_page_of_an_ogg_file_is_found(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.ogg"
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 20_000)
    soundfile.write(path, noise, 44100)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(100, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    found = read_structure(path)
    assert found.missing or found.doubt


ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(14)
STARTS = [
    b"OggS", b".snd", b"RIFF", b"FORM", b"\x1aE\xdf\xa3", b"\0\0\0\x10ftyp", b"\xff\xfb", ASF,
    ASF + bytes(16) + b"\xff" * 8, b"\x1aE\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xfe",
]  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(STARTS), st.binary(max_size=500))
def test_any_bytes_have_a_structure(tmp_path: Path, start: bytes, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(start + content)
    assert isinstance(read_structure(path), Structure)


@pytest.mark.parametrize("lost", [3, 5, -2])
def test_lost_pages_inside_an_ogg_file_are_found(song: WriteSong, lost: int) -> None:
    path = song("a.ogg", samples=200_000)
    first, *pages = path.read_bytes().split(b"OggS")
    del pages[lost]
    path.write_bytes(b"OggS".join([first, *pages]))
    assert "are lost" in read_structure(path).missing
