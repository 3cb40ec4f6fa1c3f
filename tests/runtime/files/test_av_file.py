"""Songs that FFmpeg alone reads, and what a stranger's file may not make it do."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import soundfile

from bsmamba2 import AudioError, MissingExtra, Separator
from bsmamba2.files.song_file import SongFile

av = pytest.importorskip("av")

KINDS = {"song.m4a": "aac", "alac.m4a": "alac", "song.wma": "wmav2", "song.webm": "libopus"}


@pytest.fixture
def encoded(tmp_path):
    """``encoded("song.m4a")``: two seconds of a sine, and its path."""

    def write(name, codec=None, channels=2, rate=48000):
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
def test_a_song_comes_through_ffmpeg(stub, encoded, name):
    path, _ = encoded(name)
    made = Separator(stub.half()).separate_file(path)
    assert soundfile.info(made["vocals"]).subtype == "PCM_24"
    audio, rate = soundfile.read(made["vocals"])
    assert rate == 48000
    tone = np.exp(2j * np.pi * 440 * np.arange(48000) / 48000)
    amplitude = 2 * np.abs(np.mean(audio[24000:72000].T * tone, axis=1))
    np.testing.assert_allclose(amplitude, 0.25, atol=0.01)


def test_a_lossless_song_comes_to_the_bit(encoded):
    path, sine = encoded("alac.m4a")
    with SongFile(path) as song:
        samples = np.concatenate(list(song.blocks()), axis=1)
        assert song.samples == samples.shape[1]
    np.testing.assert_allclose(samples[:, : sine.shape[1]], sine, rtol=0, atol=2**-15)


def test_surround_comes_with_all_its_channels(encoded):
    path, _ = encoded("surround.m4a", "aac", channels=6)
    with SongFile(path) as song:
        assert song.channels == 6


def test_without_ffmpeg_the_sentence_has_the_line_that_installs_it(stub, encoded, monkeypatch):
    path, _ = encoded("song.m4a")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r'song.m4a needs FFmpeg .*pip install "bsmamba2\[av\]"'):
        Separator(stub.half()).separate_file(path)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("name", KINDS)
def test_a_cut_off_song_is_one_sentence_or_shorter(stub, encoded, name, keep):
    path, _ = encoded(name)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    try:
        Separator(stub.half()).separate_file(path)
    except AudioError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)


def test_a_codec_that_nobody_knows_is_refused(stub, encoded):
    path, _ = encoded("song.m4a")
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"zzzz").replace(b"esds", b"free"))
    with pytest.raises(AudioError, match=r"has audio that FFmpeg cannot decode"):
        Separator(stub.half()).separate_file(path)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsong.m4a\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("content", [PLAYLIST, "ffconcat version 1.0\nfile song.m4a\n", "no song"])
def test_a_file_that_points_to_another_is_refused(stub, encoded, content):
    path, _ = encoded("song.m4a")
    trap = path.with_name("trap.m4a")
    trap.write_text(content)
    with pytest.raises(AudioError, match=r"trap\.m4a is not audio that FFmpeg reads"):
        Separator(stub.half()).separate_file(trap)


def test_a_film_without_sound_is_refused(stub, tmp_path):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(AudioError, match="has no audio in it"):
        Separator(stub.half()).separate_file(path)
