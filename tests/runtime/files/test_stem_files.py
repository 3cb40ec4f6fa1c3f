"""Stems appear complete or not at all, replace a file only on request, and are exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bsmamba2 import AudioError, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.files.encoding import Clip, Encoding
from bsmamba2.files.stem_files import StemFiles
from support.engines import StubEngine, Stubs
from support.files import floats, names
from support.fixtures import WriteSong


def test_long_chunks_are_written_in_pieces_that_libvorbis_can_handle(
    stub: Stubs, song: WriteSong
) -> None:
    path, engine = song(samples=3_000_000), stub.half(chunk=2_900_000)
    paths = Separator(engine).separate_file(path, format="ogg")
    assert soundfile.info(paths["vocals"]).frames == 3_000_000


def test_only_requested_stems_are_written(stub: Stubs, song: WriteSong, tmp_path: Path) -> None:
    paths = Separator(stub.half()).separate_file(song(), tmp_path / "out", stems=["no_vocals"])
    assert names(tmp_path / "out") == ["song_instrumental.wav"]
    assert paths == {"instrumental": tmp_path / "out" / "song_instrumental.wav"}


def amplify_peaks(chunk: Audio) -> Audio:
    """The rare samples above 0.4499 exceed full scale in the stem, but not in the residual."""
    return np.where(np.abs(chunk) > 0.4499, 3 * chunk, chunk)[np.newaxis]


@pytest.mark.parametrize("name", ["song.wav", "song.flac", "song.caf", "song.au"])
@pytest.mark.parametrize("samples", [20, 5000, 200_000])
def test_a_stem_beyond_full_scale_is_continued_as_32_bit_float(
    song: WriteSong, samples: int, name: str
) -> None:
    path = song(name, "PCM_16", samples=samples, gain=0.45)
    paths = Separator(StubEngine(amplify_peaks)).separate_file(path)
    np.testing.assert_array_equal(sum(map(floats, paths.values())), floats(path))


def test_only_the_file_that_exceeds_full_scale_changes_format_with_a_warning(
    song: WriteSong, caplog: pytest.LogCaptureFixture
) -> None:
    path = song("song.flac", "PCM_16", samples=200_000, gain=0.45)
    paths = Separator(StubEngine(amplify_peaks)).separate_file(path)
    assert [out.name for out in paths.values()] == ["song_vocals.wav", "song_instrumental.flac"]
    assert [soundfile.info(out).subtype for out in paths.values()] == ["FLOAT", "PCM_16"]
    assert caplog.messages == [
        "song_vocals.wav exceeds full scale, which PCM_16 cannot hold: "
        "it is written as 32-bit float"
    ]
    assert len(names(path.parent)) == 3


def triple(chunk: Audio) -> Audio:
    return 3 * chunk[np.newaxis]


def test_a_stem_beyond_full_scale_is_clipped_on_request(song: WriteSong) -> None:
    path = song("song.flac", "PCM_16", samples=5000, gain=0.9)
    paths = Separator(StubEngine(triple)).separate_file(path, clip="clip")
    expected = np.clip(3 * floats(path), -1, 1 - 2**-15)
    np.testing.assert_allclose(floats(paths["vocals"]), expected, atol=2**-15)


def test_a_stem_beyond_full_scale_is_an_error_on_request(song: WriteSong) -> None:
    path = song(subtype="PCM_16", samples=5000, gain=0.9)
    with pytest.raises(AudioError, match=r"song_vocals.wav exceeds full scale.*clip='float'"):
        Separator(StubEngine(triple)).separate_file(path, clip="error")
    assert names(path.parent) == ["song.wav"]


def test_existing_files_are_kept_unless_overwriting_is_allowed(
    stub: Stubs, song: WriteSong
) -> None:
    path = song(samples=500)
    (path.parent / "song_instrumental.wav").write_text("mine")
    with pytest.raises(AudioError, match=r"song_instrumental.wav exists already.*overwrite=True"):
        Separator(stub.half()).separate_file(path)
    assert names(path.parent) == ["song.wav", "song_instrumental.wav"]
    paths = Separator(stub.half()).separate_file(path, overwrite=True)
    assert soundfile.info(paths["instrumental"]).frames == 500


def test_a_file_that_appears_during_the_work_is_kept(stub: Stubs, song: WriteSong) -> None:
    path = song(samples=500)
    target = path.parent / "song_vocals.wav"

    def progress(done: float, total: float) -> None:
        target.write_text("mine")

    with pytest.raises(AudioError, match="exists already"):
        Separator(stub.half()).separate_file(path, progress=progress)
    assert target.read_text() == "mine"
    assert names(path.parent) == ["song.wav", "song_vocals.wav"]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_the_song_is_never_overwritten(
    stub: Stubs, song: WriteSong, link: Callable[[Path, Path], None]
) -> None:
    path = song()
    link(path.parent / "song_vocals.wav", path)
    with pytest.raises(AudioError, match="is the song itself"):
        Separator(stub.half()).separate_file(path, overwrite=True)


def test_no_stem_file_has_its_name_before_all_are_complete(stub: Stubs, song: WriteSong) -> None:
    path, listings = song(samples=300_000), list[list[str]]()
    Separator(stub.half()).separate_file(
        path, progress=lambda done, total: listings.append(names(path.parent))
    )
    parts = [n for n in listings[-1] if n.startswith(".song_") and n.endswith(".part")]
    assert (len(parts), len(listings[-1])) == (2, 3)


def test_a_folder_that_cannot_be_created_is_reported_in_one_sentence(
    stub: Stubs, song: WriteSong
) -> None:
    path = song()
    with pytest.raises(AudioError, match=r"folder .* cannot be created .*: choose another dir"):
        Separator(stub.half()).separate_file(path, path / "out")


def test_a_folder_that_cannot_be_written_is_reported_in_one_sentence(
    stub: Stubs, song: WriteSong
) -> None:
    with pytest.raises(AudioError, match=r"cannot be written|cannot be created"):
        Separator(stub.half()).separate_file(song(), "/proc/1")


@pytest.mark.parametrize("clip", ["float", "clip"])
def test_a_lossy_stem_beyond_full_scale_is_reported_or_clipped(
    tmp_path: Path, clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    mp3 = Encoding("MP3", "MPEG_LAYER_III", ".mp3")
    with StemFiles(tmp_path, ["a"], mp3, 44100, 2, clip=clip, overwrite=False) as files:
        files.write(2 * np.ones((1, 2, 9)))
        files.finish()
    assert ("a.mp3 exceeds full scale by 6.0 dB" in caplog.text) == (clip == "float")


def test_a_lossy_stem_beyond_full_scale_is_refused_on_request(tmp_path: Path) -> None:
    mp3 = Encoding("MP3", "MPEG_LAYER_III", ".mp3")
    with (
        StemFiles(tmp_path, ["a"], mp3, 44100, 2, clip="error", overwrite=False) as files,
        pytest.raises(AudioError, match="a.mp3 exceeds full scale: use clip='float'"),
    ):
        files.write(2 * np.ones((1, 2, 9)))
