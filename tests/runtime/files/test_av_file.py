"""Songs that only FFmpeg reads, and the limits on what an untrusted file can make it do."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile

from bsmamba2 import AudioError, MissingExtra, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.files.av_file import AvFile
from bsmamba2.files.excerpt import Excerpt
from bsmamba2.files.song_file import SongFile
from bsmamba2.files.tags import read_tags
from bsmamba2.installation import install_command
from support.engines import Stubs
from support.files import read_song
from support.fixtures import WriteSong

av = pytest.importorskip("av")

KINDS = {"song.m4a": "aac", "alac.m4a": "alac", "song.wma": "wmav2", "song.webm": "libopus"}
Encode = Callable[..., tuple[Path, Audio]]


@pytest.fixture
def encode(tmp_path: Path) -> Encode:
    """``encode("song.m4a")``: writes two seconds of a sine; its path and its samples."""

    def write(
        name: str,
        codec: str | None = None,
        channels: int = 2,
        rate: int = 48000,
        bit_rate: int = 128_000,
        samples: int | None = None,
        **options: str,
    ) -> tuple[Path, Audio]:
        path, t = tmp_path / name, np.arange(samples or 2 * rate) / rate
        codec = codec or KINDS[name]
        sine = np.tile(0.5 * np.sin(2 * np.pi * 440 * t), (channels, 1)).astype(np.float32)
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate, layout=layout, options=options)
            stream.bit_rate = bit_rate
            frame = av.AudioFrame.from_ndarray(sine, format="fltp", layout=layout)
            frame.sample_rate = rate
            convert = av.AudioResampler(stream.format, layout, rate, stream.frame_size or 1024)
            for part in [*convert.resample(frame), *convert.resample(None)]:
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
        return path, sine

    return write


@pytest.mark.parametrize(("name", "codec"), [("song.wma", "wmav2"), ("song.wv", "wavpack")])
def test_tags_of_a_song_that_only_ffmpeg_reads_reach_its_stems(
    stub: Stubs, encode: Encode, name: str, codec: str
) -> None:
    path, _ = encode(name, codec, samples=9000)
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    file["Title"] = ["Ångström"]
    file.save()
    stem = Separator(stub.half()).separate_file(path, format="flac")["vocals"]
    assert read_tags(stem).fields["title"] == ["Ångström"]


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
    with pytest.raises(MissingExtra, match=f"song.m4a can only be read with FFmpeg .*{command}"):
        Separator(stub.half()).separate_file(path)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("name", KINDS)
def test_a_song_that_was_not_copied_completely_is_refused(
    stub: Stubs, encode: Encode, name: str, keep: float
) -> None:
    path, _ = encode(name)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(AudioError) as error:
        Separator(stub.half()).separate_file(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def joined(path: Path, parts: list[Path]) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.opus"])
@pytest.mark.parametrize("count", [2, 3])
def test_all_parts_of_a_chain_are_read(song: WriteSong, name: str, count: int) -> None:
    kind = {"format": "OGG", "subtype": "OPUS"} if name == "a.opus" else {}
    path = song("x.wav", samples=48000, rate=48000)
    part = path.with_name(name)
    soundfile.write(part, *soundfile.read(path), **kind)
    chain = joined(path.with_name(f"chain{part.suffix}"), [part] * count)
    samples = read_song(chain)
    assert samples.shape[1] == pytest.approx(48000 * count, rel=0.07)
    last = samples[:, 48000 * (count - 1) + 4000 : 48000 * count]
    assert np.abs(last).mean() > 0.03


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.m4a", "aac"), ("a.webm", "libopus"), ("a.wma", "wmav2"), ("a.wv", "wavpack"),
     ("a.tta", "tta"), ("a.opus", "libopus")],
)  # fmt: skip
def test_joined_files_of_other_rates_and_channels_are_read(
    encode: Encode, name: str, codec: str
) -> None:
    rate = 24000 if codec == "libopus" else 22050
    first = encode(name, codec, samples=24_000)[0].read_bytes()
    other = encode(name, codec, rate=rate, channels=1, samples=rate)[0].read_bytes()
    path, _ = encode(name, codec, samples=24_000)
    path.write_bytes(first + other + first)
    assert read_song(path).shape == (2, pytest.approx(2 * 48000, abs=7000))


def test_a_live_webm_that_ends_within_a_block_is_refused(encode: Encode) -> None:
    path, _ = encode("a.webm", "libopus")
    content = bytearray(path.read_bytes())
    at = content.index(bytes.fromhex("18538067")) + 4
    content[at : at + 8] = b"\x01" + 7 * b"\xff"
    path.write_bytes(content[:-1000])
    with pytest.raises(AudioError, match="incomplete"):
        read_song(path)


def test_a_flac_without_its_last_frame_is_refused(song: WriteSong) -> None:
    path = song("a.flac", samples=100_000)
    os.truncate(path, path.stat().st_size - 3000)
    with pytest.raises(AudioError, match="it is damaged|incomplete"):
        read_song(path)


def test_a_chain_that_ends_too_early_is_refused(stub: Stubs, song: WriteSong) -> None:
    part = song("a.mp3", samples=44100)
    chain = joined(part.with_name("chain.mp3"), [part, part])
    chain.write_bytes(chain.read_bytes()[:-3000])
    with pytest.raises(AudioError, match=r"\(its header states 40 frames, and 33 are there"):
        Separator(stub.half()).separate_file(chain)


@pytest.mark.parametrize(("name", "codec"), [("x.aac", "aac"), ("x.mp3", "libmp3lame")])
@pytest.mark.parametrize(("channels", "rate"), [(1, 48000), (2, 44100)])
def test_a_song_that_changes_midway_keeps_the_layout_of_its_start(
    encode: Encode,
    caplog: pytest.LogCaptureFixture,
    name: str,
    codec: str,
    channels: int,
    rate: int,
) -> None:
    one, _ = encode(f"1{name}", codec)
    other, _ = encode(f"2{name}", codec, channels, rate)
    samples = read_song(joined(one.with_name(name), [one, other]))
    assert samples.shape[0] == 2
    assert samples.shape[1] / 48000 == pytest.approx(4, abs=0.25)
    assert f"{name} changes to " in caplog.text


def test_a_flac_without_a_length_is_separated_exactly(stub: Stubs, song: WriteSong) -> None:
    path = song("song.flac", "PCM_16", samples=70_000)
    whole, content = read_song(path), bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_song(path), whole)
    paths = Separator(stub.half()).separate_file(path)
    assert {soundfile.info(out).subtype for out in paths.values()} == {"PCM_16"}


@pytest.mark.parametrize("size", ["both", "data"])
def test_a_wav_that_states_a_size_of_0_is_read_to_its_end(song: WriteSong, size: str) -> None:
    path = song("song.wav", "PCM_24", samples=5000)
    whole, content = read_song(path), bytearray(path.read_bytes())
    for at in ([4] if size == "both" else []) + [content.index(b"data") + 4]:
        content[at : at + 4] = bytes(4)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_song(path), whole)
    with SongFile(path) as opened:
        assert (opened.encoding.format, opened.encoding.subtype) == ("WAV", "PCM_24")


def test_the_bytes_of_a_song_decide_who_reads_it_not_its_suffix(
    stub: Stubs, encode: Encode
) -> None:
    path, _ = encode("song.m4a")
    for name in ("song.mp3", "song.wav", "song"):
        path = path.rename(path.with_name(name))
        outputs = Separator(stub.half()).separate_file(path, overwrite=True)
        assert soundfile.info(outputs["vocals"]).frames == pytest.approx(96000, abs=3000)


def test_where_libsndfile_fails_midway_ffmpeg_continues(
    song: WriteSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = song("song.flac", "PCM_16", samples=200_000)
    whole, read = read_song(path), soundfile.SoundFile.read

    def fail_later(file: soundfile.SoundFile, *arguments: object, **options: object) -> object:
        if file.tell() > 100_000:
            raise soundfile.LibsndfileError(3)
        return read(file, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", fail_later)
    np.testing.assert_array_equal(read_song(path), whole)


def test_opus_of_a_high_bit_rate_that_libsndfile_cannot_end_is_read(encode: Encode) -> None:
    path, _ = encode("song.opus", "libopus", bit_rate=510_000, samples=84_575, vbr="off")
    assert read_song(path).shape[1] == 84_575


def test_the_default_track_is_read_not_the_first(tmp_path: Path) -> None:
    path = tmp_path / "film.mka"
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("pcm_s16le", rate=48000, layout="mono") for _ in range(2)]
        tracks[0].disposition = av.stream.Disposition(0)
        tracks[1].disposition = av.stream.Disposition.default
        for track, level in zip(tracks, (1000, 9000), strict=True):
            samples = np.full((1, 4608), level, np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = 48000
            container.mux([*track.encode(frame), *track.encode(None)])
    np.testing.assert_array_equal(read_song(path), 9000 / 2**15)


def test_a_relative_name_with_a_colon_is_not_a_protocol(
    encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = encode("song.m4a")
    path.rename(path.with_name("http:song.m4a"))
    monkeypatch.chdir(path.parent)
    assert read_song(Path("http:song.m4a")).shape[1] > 90_000


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
    with pytest.raises(AudioError, match=r"trap\.m4a is not audio that libsndfile or FFmpeg reads"):
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


@pytest.mark.parametrize("channels", [1, 2, 6, 7, 8, 9, 16])
def test_any_number_of_channels_is_read(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "song.wav"
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (5000, channels))
    soundfile.write(path, noise, 44100, "PCM_16")
    whole, content = read_song(path), bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = bytes(4)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_song(path), whole)


@pytest.mark.parametrize("name", ["alac.m4a", "song.m4a", "song.webm"])
@pytest.mark.parametrize("start_s", [0.01, 1.2345, 2.9])
def test_an_excerpt_is_that_part_of_the_decoded_song(
    encode: Encode, name: str, start_s: float
) -> None:
    path, _ = encode(name, samples=4 * 48000)
    first = round(start_s * 48000)
    expected = read_song(path)[:, first : first + 24000]
    with SongFile(path, Excerpt(start_s, 0.5)) as song:
        found = np.concatenate(list(song.blocks()), axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_excerpt_is_found_by_the_clock_of_its_container(encode: Encode) -> None:
    path, _ = encode("alac.m4a", samples=8 * 48000)
    file = SongFile(path)._file
    assert isinstance(file, AvFile)
    assert file.can_seek()
    at = file.seek(6 * 48000)
    assert 6 * 48000 - 4096 <= at <= 6 * 48000
    file.close()


def test_an_excerpt_after_the_end_is_refused(encode: Encode) -> None:
    path, _ = encode("song.m4a")
    with pytest.raises(AudioError, match="before the end of the song, 2.* s; got 3"):
        SongFile(path, Excerpt(3))
