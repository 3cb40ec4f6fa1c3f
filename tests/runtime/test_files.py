"""Files in and files out: to the bit, in constant memory, whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsmamba2 import AudioError, Cancelled, ModelError, Separator
from bsmamba2.files.encoding import Encoding
from bsmamba2.files.song_file import SongFile


def integers(path):
    """Samples as 32-bit integers, in 64 bits so that sums do not overflow."""
    return soundfile.read(path, dtype="int32", always_2d=True)[0].astype(np.int64)


def floats(path):
    return soundfile.read(path, always_2d=True)[0]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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
def test_files_of_integers_keep_their_format_and_sum_to_the_bit(stub, song, name, subtype, rate):
    path = song(name, subtype, rate=rate, samples=5000)
    made = Separator(stub.lower_half_band()).separate_file(path)
    np.testing.assert_array_equal(sum(map(integers, made.values())), integers(path))
    for stem, out in made.items():
        assert out == path.with_name(f"song_{stem}{path.suffix}")
        assert (soundfile.info(out).subtype, soundfile.info(out).samplerate) == (subtype, rate)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_files_of_floats_keep_their_format_and_sum_to_1e_6(stub, song, subtype):
    path = song("song.wav", subtype, samples=5000, gain=3)
    made = Separator(stub.lower_half_band()).separate_file(path)
    np.testing.assert_allclose(sum(map(floats, made.values())), floats(path), rtol=0, atol=1e-6)
    assert soundfile.info(made["vocals"]).subtype == subtype


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("song.mp3", None), ("song.ogg", None), ("song.wav", "ULAW"), ("song.voc", "PCM_16")],
)
def test_a_lossy_or_rare_song_gives_flac_of_24_bits(stub, song, name, subtype):
    made = Separator(stub.half()).separate_file(song(name, subtype, samples=5000))
    assert [path.name for path in made.values()] == ["song_vocals.flac", "song_instrumental.flac"]
    assert soundfile.info(made["vocals"]).subtype == "PCM_24"


@pytest.mark.parametrize(
    ("asked", "given_format", "given_subtype"),
    [
        ({"format": "flac"}, "FLAC", "PCM_16"),
        ({"format": "AIFF", "subtype": "pcm_24"}, "AIFF", "PCM_24"),
        ({"subtype": "float"}, "WAV", "FLOAT"),
        ({"format": "ogg"}, "OGG", "VORBIS"),
    ],
)
def test_format_and_subtype_are_what_is_asked_for(stub, song, asked, given_format, given_subtype):
    made = Separator(stub.half()).separate_file(song(subtype="PCM_16", samples=500), **asked)
    info = soundfile.info(made["vocals"])
    assert (info.format, info.subtype) == (given_format, given_subtype)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("song", ".wav"), ("song.flac", ".wav"), ("song.WAVE", ".WAVE"), ("song.v2", ".wav")],
)
def test_stems_have_the_suffix_of_what_they_are(stub, song, name, suffix):
    path = song("x.wav", samples=500)
    path = path.rename(path.with_name(name))
    made = Separator(stub.half()).separate_file(path)
    assert made["vocals"].suffix == suffix


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"format": "wma"}, "format must be one of wav, .*, flac, .*; 'wma' came"),
        ({"format": "raw"}, "format must be"),
        ({"format": "flac", "subtype": "float"}, "subtype for FLAC must be one of .*PCM_24"),
        ({"clip": "wrap"}, "clip must be one of float, clip, error; 'wrap' came"),
        ({"overlap": 4}, r"MSST's num_overlap 2 is 0\.5"),
        ({"stems": ["drums"]}, "stem must be one of vocals, instrumental; 'drums' came"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_file_is_made(stub, song, asked, message):
    path = song()
    with pytest.raises((AudioError, ModelError), match=message):
        Separator(stub.half()).separate_file(path, **asked)
    assert names(path.parent) == ["song.wav"]


def test_long_chunks_are_written_in_pieces_that_libvorbis_survives(stub, song):
    path, engine = song(samples=3_000_000), stub.half(chunk=2_900_000)
    made = Separator(engine).separate_file(path, format="ogg")
    assert soundfile.info(made["vocals"]).frames == 3_000_000


def test_stems_that_were_not_asked_for_are_not_written(stub, song, tmp_path):
    made = Separator(stub.half()).separate_file(song(), tmp_path / "out", stems=["no_vocals"])
    assert names(tmp_path / "out") == ["song_instrumental.wav"]
    assert made == {"instrumental": tmp_path / "out" / "song_instrumental.wav"}


def loud_peaks(chunk):
    """The rare samples above 0.4499 leave full scale in the stem, not in the residual."""
    return np.where(np.abs(chunk) > 0.4499, 3 * chunk, chunk)[np.newaxis]


@pytest.mark.parametrize("name", ["song.wav", "song.flac", "song.caf", "song.au"])
@pytest.mark.parametrize("samples", [20, 5000, 200_000])
def test_a_stem_beyond_full_scale_goes_on_as_32_bit_float(stub, song, samples, name):
    path = song(name, "PCM_16", samples=samples, gain=0.45)
    made = Separator(stub.of(loud_peaks)).separate_file(path)
    np.testing.assert_array_equal(sum(map(floats, made.values())), floats(path))


def test_only_the_file_that_leaves_full_scale_changes_and_it_is_said(stub, song, caplog):
    path = song("song.flac", "PCM_16", samples=200_000, gain=0.45)
    made = Separator(stub.of(loud_peaks)).separate_file(path)
    assert [out.name for out in made.values()] == ["song_vocals.wav", "song_instrumental.flac"]
    assert [soundfile.info(out).subtype for out in made.values()] == ["FLOAT", "PCM_16"]
    assert [record.message for record in caplog.records] == [
        "song_vocals.wav leaves full scale, which PCM_16 cannot hold: it is written as 32-bit float"
    ]
    assert len(names(path.parent)) == 3


def test_a_stem_beyond_full_scale_is_clipped_where_that_is_asked(stub, song):
    path = song("song.flac", "PCM_16", samples=5000, gain=0.9)
    loud = stub.of(lambda chunk: 3 * chunk[np.newaxis])
    made = Separator(loud).separate_file(path, clip="clip")
    expected = np.clip(3 * floats(path), -1, 1 - 2**-15)
    np.testing.assert_allclose(floats(made["vocals"]), expected, atol=2**-15)


def test_a_stem_beyond_full_scale_is_an_error_where_that_is_asked(stub, song):
    path = song(subtype="PCM_16", samples=5000, gain=0.9)
    with pytest.raises(AudioError, match=r"song_vocals.wav leaves full scale.*--clip float"):
        Separator(stub.of(lambda chunk: 3 * chunk[np.newaxis])).separate_file(path, clip="error")
    assert names(path.parent) == ["song.wav"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gain=st.floats(-1e6, 1e6), bits=st.sampled_from([8, 16, 24]), length=st.integers(1, 300))
def test_wild_stems_still_sum_to_the_song(stub, song, gain, bits, length):
    path = song(subtype=f"PCM_{'U' * (bits == 8)}{bits}", samples=length, gain=0.9)
    engine = stub.of(lambda chunk: np.float32(gain) * chunk[np.newaxis])
    made = Separator(engine).separate_file(path, overwrite=True)
    tolerance = 2e-7 * max(1, abs(gain))
    np.testing.assert_allclose(sum(map(floats, made.values())), floats(path), atol=tolerance)


def test_existing_files_are_kept_unless_overwriting_is_allowed(stub, song):
    path = song(samples=500)
    (path.parent / "song_instrumental.wav").write_text("mine")
    with pytest.raises(AudioError, match=r"song_instrumental.wav exists already.*--overwrite"):
        Separator(stub.half()).separate_file(path)
    assert names(path.parent) == ["song.wav", "song_instrumental.wav"]
    made = Separator(stub.half()).separate_file(path, overwrite=True)
    assert soundfile.info(made["instrumental"]).frames == 500


def test_a_file_that_appears_meanwhile_is_kept_too(stub, song):
    path = song(samples=500)
    target = path.parent / "song_vocals.wav"
    with pytest.raises(AudioError, match="exists already"):
        Separator(stub.half()).separate_file(
            path, progress=lambda done, total: target.write_text("mine")
        )
    assert target.read_text() == "mine"
    assert names(path.parent) == ["song.wav", "song_vocals.wav"]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_the_song_is_never_written_onto(stub, song, link):
    path = song()
    link(path.parent / "song_vocals.wav", path)
    with pytest.raises(AudioError, match="is the song itself"):
        Separator(stub.half()).separate_file(path, overwrite=True)


def fail_at(seconds, error):
    def progress(done, total):
        if done > seconds:
            raise error

    return progress


@pytest.mark.parametrize("error", [Cancelled("enough"), KeyboardInterrupt(), ValueError("bug")])
@pytest.mark.parametrize("name", ["song.wav", "song.flac"])
def test_whatever_stops_the_work_leaves_no_file(stub, song, name, error):
    path = song(name, samples=300_000)
    with pytest.raises(type(error)):
        Separator(stub.half()).separate_file(path, progress=fail_at(2, error))
    assert names(path.parent) == [name]


def test_an_engine_that_fails_midway_leaves_no_file(stub, song):
    def fail_later(chunk):
        runs.append(chunk)
        if len(runs) > 100:
            raise RuntimeError("the device is gone")
        return chunk[np.newaxis]

    runs, path = [], song()
    with pytest.raises(RuntimeError, match="the device is gone"):
        Separator(stub.of(fail_later)).separate_file(path)
    assert names(path.parent) == ["song.wav"]


def test_no_file_has_its_name_before_all_are_whole(stub, song):
    path, seen = song(samples=300_000), []
    Separator(stub.half()).separate_file(
        path, progress=lambda done, total: seen.append(names(path.parent))
    )
    parts = [n for n in seen[-1] if n.startswith(".song_") and n.endswith(".part")]
    assert (len(parts), len(seen[-1])) == (2, 3)


def test_two_songs_can_be_separated_at_once(stub, song):
    paths = [song(f"{k}.wav", samples=100_000) for k in range(2)]
    separator = Separator(stub.half())
    threads = [threading.Thread(target=separator.separate_file, args=[path]) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(paths[0].parent)) == 6


@pytest.mark.parametrize("name", ["song.wav", "song.aiff", "song.au"])
@pytest.mark.parametrize("told", [True, False])
def test_what_is_longer_than_its_format_can_tell_is_rf64(stub, song, monkeypatch, name, told):
    path = song(name, "PCM_16", samples=100_000)
    if told:
        monkeypatch.setattr("bsmamba2.files.encoding.MOST_BYTES", 300_000)
    else:  # the header of a stream may say less than comes
        monkeypatch.setattr("bsmamba2.files.song_file.SongFile.samples", 10)
        monkeypatch.setattr("bsmamba2.files.encoding.MOST_BYTES", 300_000)
    made = Separator(stub.lower_half_band()).separate_file(path)
    assert {(out.suffix, soundfile.info(out).format) for out in made.values()} == {(".wav", "RF64")}
    np.testing.assert_array_equal(sum(map(integers, made.values())), integers(path))


def test_beyond_four_gigabytes_wav_becomes_rf64():
    wav = Encoding("WAV", "PCM_24", ".wav")
    assert wav.for_length(10**8, 2) == wav
    assert wav.for_length(8 * 10**8, 2) == Encoding("RF64", "PCM_24", ".wav")
    assert Encoding("W64", "DOUBLE", ".w64").for_length(10**12, 2).format == "W64"


@pytest.mark.parametrize("format", ["RF64", "W64"])
def test_a_song_of_more_than_four_gigabytes_is_read(tmp_path, format):
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 44100, 2, "DOUBLE", format=format) as file:
        file.write(np.zeros((9, 2)))
    frames = 3 * 10**8
    small = path.read_bytes()
    sized = resized(small, format, frames * 16)
    path.write_bytes(sized)
    os.truncate(path, len(small) + (frames - 9) * 16)  # a hole, that takes no room
    with SongFile(path) as song:
        assert (song.samples, path.stat().st_size > 1 << 32) == (frames, True)


def resized(file, format, size):
    """A file of nine frames whose header tells of so many bytes of samples."""

    def bits(*numbers):
        return b"".join(number.to_bytes(8, "little") for number in numbers)

    more = size - 9 * 16
    if format == "W64":
        whole = file.replace(bits(len(file)), bits(len(file) + more), 1)
        return whole.replace(bits(9 * 16 + 24), bits(size + 24), 1)
    start = file.index(b"ds64") + 8
    return file[:start] + bits(len(file) - 8 + more, size, size // 16) + file[start + 24 :]


def bad_nan(path):
    frames = np.zeros((2000, 2))
    frames[1000, 1] = np.nan
    soundfile.write(path, frames, 8000, "FLOAT")


def truncated_flac(path):
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 200_000), 8000, format="FLAC")
    path.write_bytes(path.read_bytes()[:200_000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "is an empty file"),
        (lambda path: path.write_text("no audio"), "is not audio that libsndfile reads"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, r"cannot be opened \(No such file"),
        (lambda path: os.mkfifo(path), "is no file"),
        (lambda path: soundfile.write(path, np.zeros((0, 2)), 8000), "has no samples"),
        (lambda path: soundfile.write(path, np.zeros((9, 70)), 8000), "1 to 64 channels; 70 came"),
        (lambda path: soundfile.write(path, np.zeros(9), 4000), "8000 to 384000 Hz; 4000 came"),
        (bad_nan, r"song.wav: audio must be finite; channel 2 is nan at 0\.125000 s"),
        (truncated_flac, r"cannot be read on"),
    ],
)
def test_what_is_no_song_is_one_sentence_and_no_file(stub, tmp_path, make, message):
    path = tmp_path / "song.wav"
    make(path)
    before = names(tmp_path)
    with pytest.raises(AudioError, match=message) as error:
        Separator(stub.half()).separate_file(path)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == before


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "FLOAT", "DOUBLE"])
def test_a_song_of_one_sample_is_separated(stub, song, subtype):
    path = song(subtype=subtype, samples=1)
    made = Separator(stub.half()).separate_file(path)
    assert [soundfile.info(out).frames for out in made.values()] == [1, 1]


def test_a_headerless_file_is_refused(stub, tmp_path):
    (tmp_path / "song.raw").write_bytes(b"1234")
    with pytest.raises(AudioError, match="is not audio that libsndfile reads"):
        Separator(stub.half()).separate_file(tmp_path / "song.raw")


def test_a_folder_that_cannot_be_made_is_one_sentence(stub, song):
    path = song()
    with pytest.raises(AudioError, match=r"folder .* cannot be made .*: give another directory"):
        Separator(stub.half()).separate_file(path, path / "out")


def test_a_folder_that_cannot_be_written_is_one_sentence(stub, song):
    with pytest.raises(AudioError, match=r"cannot be written|cannot be made"):
        Separator(stub.half()).separate_file(song(), "/proc/1")
