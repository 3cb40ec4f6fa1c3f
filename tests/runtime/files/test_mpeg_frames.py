"""Frames of MP3 and AAC are counted as encoders wrote them, between any other bytes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.files.mpeg_frames import Frames, count_frames, find_first_frame

LENGTH = 30_000


def mp3(rate: int = 44100, channels: int = 2, samples: int = LENGTH) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (samples, channels))
    soundfile.write(file, noise, rate, format="MP3")
    return file.getvalue()


def frames_of(content: bytes) -> Frames:
    file = io.BytesIO(content)
    first = find_first_frame(file, len(content))
    return Frames() if first is None else count_frames(file, len(content), first)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_all_frames_of_an_mp3_are_counted(rate: int, channels: int) -> None:
    (part,) = frames_of(mp3(rate, channels)).parts
    assert (part.kind.rate, part.kind.channels) == (rate, channels)
    assert part.frames == part.stated
    assert LENGTH < part.samples < LENGTH + 4 * 1152


TAGS = [b"ID3\x04\0\0\0\0\0\x05hello", b"TAG" + bytes(125), b"APETAGEX" + bytes(24), b"junk" * 99]


@pytest.mark.parametrize("between", TAGS)
def test_tags_and_junk_between_parts_are_no_frames(between: bytes) -> None:
    one, other = mp3(), mp3(channels=1)
    found = frames_of(between + one + between + other + between)
    assert [part.kind.channels for part in found.parts] == [2, 1]
    assert all(part.frames == part.stated for part in found.parts)
    assert not found.is_cut


@given(st.integers(1, 90))
def test_a_file_that_ends_in_a_frame_is_cut(missing: int) -> None:
    found = frames_of(CONTENT[:-missing])
    assert found.is_cut
    assert found.parts[0].frames == WHOLE - 1


@given(st.binary(max_size=3000))
def test_any_bytes_are_counted_without_an_error(content: bytes) -> None:
    frames_of(content)
    frames_of(CONTENT + content)


def test_aac_is_counted_in_blocks_of_1024(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "x.aac"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 44100
        for _ in range(20):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (part,) = frames_of(path.read_bytes()).parts
    assert (part.kind.codec, part.kind.rate, part.samples % 1024) == ("aac", 44100, 0)
    assert 20 <= part.frames <= 22


CONTENT = mp3()
WHOLE = frames_of(CONTENT).parts[0].frames
