"""Songs that only FFmpeg reads, and the limits on what an untrusted file can make it do."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bsmamba2 import AudioError, MissingExtra, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.files.song_file import SongFile
from bsmamba2.installation import install_command
from support.engines import Stubs

av = pytest.importorskip("av")

KINDS = {"song.m4a": "aac", "alac.m4a": "alac", "song.wma": "wmav2", "song.webm": "libopus"}
Encode = Callable[..., tuple[Path, Audio]]


@pytest.fixture
def encode(tmp_path: Path) -> Encode:
    """``encode("song.m4a")``: writes two seconds of a sine; its path and its samples."""

    def write(
        name: str, codec: str | None = None, channels: int = 2, rate: int = 48000
    ) -> tuple[Path, Audio]:
        path, t = tmp_path / name, np.arange(2 * rate) / rate
        codec = codec or KINDS[name]
        sine = np.tile(0.5 * np.sin(2 * np.pi * 440 * t), (channels, 1)).astype(np.float32)
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate, layout=layout)
            stream.bit_rate = 128_000
            frame = av.AudioFrame.from_ndarray(sine, format="fltp", layout=layout)
            frame.sample_rate = rate
            convert = av.AudioResampler(stream.format, layout, rate, stream.frame_size or 1024)
            for part in [*convert.resample(frame), *convert.resample(None)]:
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
        return path, sine

    return write


@pytest.mark.parametrize("name", KINDS)
def test_a_song_that_only_ffmpeg_reads_is_separated(stub: Stubs, encode: Encode, name: str) -> None:
    path, _ = encode(name)
    paths = Separator(stub.half()).separate_file(path)
    assert soundfile.info(paths["vocals"]).subtype == "PCM_24"
    audio, rate = soundfile.read(paths["vocals"])
    assert rate == 48000
    tone = np.exp(2j * np.pi * 440 * np.arange(48000) / 48000)
    amplitude = 2 * np.abs(np.mean(audio[24000:72000].T * tone, axis=1))
    np.testing.assert_allclose(amplitude, 0.25, atol=0.01)


def test_a_lossless_song_is_read_exactly(encode: Encode) -> None:
    path, sine = encode("alac.m4a")
    with SongFile(path) as song:
        samples = np.concatenate(list(song.blocks()), axis=1)
        assert song.samples == samples.shape[1]
    np.testing.assert_allclose(samples[:, : sine.shape[1]], sine, rtol=0, atol=2**-15)


def test_a_surround_song_keeps_all_its_channels(encode: Encode) -> None:
    path, _ = encode("surround.m4a", "aac", channels=6)
    with SongFile(path) as song:
        assert song.channels == 6


def test_without_pyav_the_error_contains_the_install_command(
    stub: Stubs, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = encode("song.m4a")
    monkeypatch.setitem(sys.modules, "av", None)
    command = re.escape(install_command("av"))
    with pytest.raises(MissingExtra, match=f"song.m4a can only .*{command}"):
        Separator(stub.half()).separate_file(path)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("name", KINDS)
def test_a_truncated_song_is_shorter_or_refused_in_one_sentence(
    stub: Stubs, encode: Encode, name: str, keep: float
) -> None:
    path, _ = encode(name)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    try:
        Separator(stub.half()).separate_file(path)
    except AudioError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)


def test_an_unknown_codec_is_refused(stub: Stubs, encode: Encode) -> None:
    path, _ = encode("song.m4a")
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"zzzz").replace(b"esds", b"free"))
    with pytest.raises(AudioError, match=r"contains audio that FFmpeg cannot decode"):
        Separator(stub.half()).separate_file(path)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsong.m4a\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("content", [PLAYLIST, "ffconcat version 1.0\nfile song.m4a\n", "no song"])
def test_a_file_that_refers_to_another_is_refused(
    stub: Stubs, encode: Encode, content: str
) -> None:
    path, _ = encode("song.m4a")
    trap = path.with_name("trap.m4a")
    trap.write_text(content)
    with pytest.raises(AudioError, match=r"trap\.m4a is not audio that FFmpeg reads"):
        Separator(stub.half()).separate_file(trap)


def test_a_video_without_sound_is_refused(stub: Stubs, tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(AudioError, match="contains no audio"):
        Separator(stub.half()).separate_file(path)
