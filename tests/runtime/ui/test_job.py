"""A job: songs one after the other, each with files or a sentence, until it is cancelled."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bsmamba2 import AudioError, ModelError, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.ui.job import Job, Phase, Result, Settings, SharedModel
from support.engines import Gate, StubEngine, Stubs, half
from support.fixtures import WriteSong

SETTINGS = Settings("stub")


def shared(engine: StubEngine) -> SharedModel:
    return SharedModel(lambda model, device: Separator(engine, load=False))


@pytest.fixture
def job(tmp_path: Path, stub: Stubs) -> Iterator[Callable[..., Job]]:
    """Makes jobs, and ends them."""
    made: list[Job] = []

    def make(*songs: Path, settings: Settings = SETTINGS, model: SharedModel | None = None) -> Job:
        folder = tmp_path / f"job{len(made)}"
        made.append(Job(songs, settings, folder, model or shared(stub.half())))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_song_becomes_stems_and_a_report(job: Callable[..., Job], song: WriteSong) -> None:
    status = job(song("a.wav", samples=3000)).wait()
    assert (status.phase, status.fraction) == (Phase.DONE, 1)
    (result,) = status.results
    assert (result.name, result.error, result.tracks) == ("a.wav", "", 3)
    assert [path.name for path in result.files] == ["a_vocals.wav", "a_instrumental.wav"]
    assert result.report is not None
    assert "a.wav" in result.report.read_text(encoding="utf-8")


def test_only_the_chosen_stems_are_written_in_the_chosen_format(
    job: Callable[..., Job], song: WriteSong
) -> None:
    settings = Settings("stub", stems=("vocals",), format="flac")
    (result,) = job(song("a.wav", samples=3000), settings=settings).wait().results
    assert [path.name for path in result.files] == ["a_vocals.flac"]


def test_songs_of_one_name_do_not_mix(job: Callable[..., Job], song: WriteSong) -> None:
    (song().parent / "other").mkdir()
    songs = [song("a.wav", samples=2000), song("other/a.wav", samples=3000)]
    results = job(*songs).wait().results
    assert [result.name for result in results] == ["a.wav", "a.wav"]
    assert results[0].files[0].stat().st_size < results[1].files[0].stat().st_size


def test_a_song_that_fails_has_a_sentence_without_a_path_and_the_rest_goes_on(
    job: Callable[..., Job], song: WriteSong, tmp_path: Path
) -> None:
    hostile = tmp_path / "hostile.flac"
    hostile.write_bytes(bytes(1000))
    status = job(hostile, song("a.wav", samples=3000)).wait()
    assert status.phase is Phase.DONE
    assert status.results[0].error.startswith("hostile.flac ")
    assert str(tmp_path) not in status.results[0].error
    assert status.results[1].files


def test_a_bug_is_a_sentence_too(
    job: Callable[..., Job], song: WriteSong, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(chunk: Audio) -> Audio:
        raise ZeroDivisionError("by zero")

    with caplog.at_level(logging.CRITICAL, "bsmamba2"):
        status = job(song("a.wav", samples=3000), model=shared(StubEngine(broken))).wait()
    assert status.results[0].error.startswith("ZeroDivisionError: by zero: this is a bug")


def test_a_model_that_cannot_be_opened_fails_the_job(
    job: Callable[..., Job], song: WriteSong
) -> None:
    def refuse(model: str, device: str) -> Separator:
        raise ModelError(f"{model} is not a model")

    status = job(song("a.wav"), model=SharedModel(refuse)).wait()
    assert (status.phase, status.error) == (Phase.FAILED, "stub is not a model")


def test_a_cancelled_job_stops_in_the_middle_of_a_song(
    job: Callable[..., Job], song: WriteSong
) -> None:
    gate = Gate()
    one = job(song("a.wav", samples=9000), model=shared(gate.engine))
    assert gate.entered.wait(300)
    one.cancel()
    gate.opened.set()
    status = one.wait()
    assert (status.phase, status.results) == (Phase.CANCELLED, ())
    assert len(gate.engine.lengths) < 9000 / 48
    assert not any(path.is_file() for path in one.folder.rglob("*"))


def test_jobs_wait_for_each_other_and_can_be_cancelled_meanwhile(
    job: Callable[..., Job], song: WriteSong
) -> None:
    gate = Gate()
    model = shared(gate.engine)
    first = job(song("a.wav", samples=3000), model=model)
    assert gate.entered.wait(300)
    second, third = job(song("b.wav"), model=model), job(song("c.wav", samples=500), model=model)
    assert second.wait(0.2).phase is third.status.phase is Phase.WAITING
    second.cancel()
    assert second.wait().phase is Phase.CANCELLED
    gate.opened.set()
    assert first.wait().phase is third.wait().phase is Phase.DONE


def test_a_model_stays_loaded_until_another_is_chosen(
    job: Callable[..., Job], song: WriteSong, stub: Stubs
) -> None:
    loaded = []

    def load(model: str, device: str) -> Separator:
        loaded.append((model, device))
        return Separator(stub.half(), load=False)

    model, path = SharedModel(load), song("a.wav", samples=500)
    for name in ("a", "a", "b"):
        assert job(path, settings=Settings(name, "cpu"), model=model).wait().results[0].files
    assert loaded == [("a", "cpu"), ("b", "cpu")]


def test_the_time_left_is_known_after_the_first_chunk(
    job: Callable[..., Job], song: WriteSong
) -> None:
    seen: list[float | None] = []

    def watch(chunk: Audio) -> Audio:
        seen.append(one.status.left_s)
        return half(chunk)

    gate = threading.Event()
    engine = StubEngine(lambda chunk: gate.wait(300) and watch(chunk))
    one = job(song("a.wav", samples=3000), model=shared(engine))
    gate.set()
    status = one.wait()
    assert seen[0] is None
    assert any(left is not None and left > 0 for left in seen)
    assert status.left_s == 0


def test_closing_a_job_removes_its_files(job: Callable[..., Job], song: WriteSong) -> None:
    one = job(song("a.wav", samples=500))
    assert one.wait().results[0].files[0].exists()
    one.close()
    assert not one.folder.exists()
    assert not one.status.results[0].files[0].exists()


def test_a_song_for_which_there_is_no_room_is_a_sentence_and_writes_nothing(
    tmp_path: Path, stub: Stubs, song: WriteSong
) -> None:
    asked: list[float] = []

    def refuse(wanted: float) -> None:
        asked.append(wanted)
        raise AudioError("the disk is full")

    one = Job([song()], SETTINGS, tmp_path / "job", shared(stub.half()), refuse)
    one.start()
    assert one.wait().results == (Result("song.wav", error="the disk is full"),)
    assert asked == [2 * 44100 * 6]
    assert not one.folder.exists()
