"""Exactly once: workers in any order, and deaths at every point."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError
from bsmamba2_cluster.claim import Busy, SetAside
from bsmamba2_cluster.recipe import Recipe
from bsmamba2_cluster.record import RECORDS, WORK, Record, Stem
from bsmamba2_cluster.song_work import SongWork, complete
from bsmamba2_cluster.storage import Changed, StorageError
from bsmamba2_cluster.tidy import remove_leftovers
from support.memory_storage import NOW, MemoryStorage, Turns

RECIPE = Recipe("memory://", "model", "0" * 64, {"template": "{name}_{stem}.{ext}"})
SONG = "a/song.wav"
STEMS = ("a/song_vocals.wav", "a/song_instrumental.wav")
Before = Callable[[], None]


class World:
    """A song in a source, and a destination with the recipe."""

    def __init__(self) -> None:
        self.songs = {SONG: b"the song"}
        self.stems: dict[str, bytes] = {}
        RECIPE.settle(MemoryStorage(self.stems))

    def worker(self, name: str, before: Before = lambda: None, run: str = "") -> SongWork:
        source = MemoryStorage(self.songs, before)
        entry = MemoryStorage(self.songs).head(SONG)
        assert entry is not None
        return SongWork(source, MemoryStorage(self.stems, before), entry, RECIPE)

    def separate(self, name: str, before: Before = lambda: None, holder: str = "") -> Record:
        """Separates the song as a worker of a run of its own, whose stems differ from others'."""

        def make(work: SongWork) -> None:
            with tempfile.TemporaryDirectory() as folder:
                files = {}
                for key in STEMS:
                    data = f"{key} by {name} of ".encode() + work.song.version.encode()
                    path = Path(folder) / key.replace("/", "_")
                    path.write_bytes(data)
                    stem = Stem(key, len(data), hashlib.sha256(data).hexdigest())
                    files[key] = path, stem
                work.commit(files, {"worker": name})

        work = self.worker(name, before)
        settings = {"run": name, "worker": name, "beat_s": 1e6, "dead_holder": holder}
        return complete(work, make, **settings)[0]  # type: ignore[arg-type]

    def rescue(self) -> Record:
        """Separates the song in a later run, which takes a dead run's claim over."""
        try:
            return self.separate("rescuer")
        except Busy as busy:
            return self.separate("rescuer", holder=busy.holder)

    def records(self) -> list[Record]:
        return [Record.parse(self.stems[k]) for k in self.stems if k.startswith(RECORDS)]

    def require_agreement(self) -> None:
        """Requires every record's stems to be there, from one attempt."""
        for record in self.records():
            for stem in record.outputs.values():
                assert hashlib.sha256(self.stems[stem.key]).hexdigest() == stem.sha256

    def require_done(self) -> None:
        """Requires one record, its stems, and after tidying nothing else."""
        remove_leftovers(MemoryStorage(self.stems), NOW)
        self.require_agreement()
        assert len(self.records()) == 1
        assert [key for key in self.stems if key.startswith(WORK)] == []
        assert sorted(key for key in self.stems if not key.startswith(".")) == sorted(STEMS)


def test_a_song_is_separated_once() -> None:
    world = World()
    first = world.separate("one")
    assert world.separate("two") == first
    world.require_done()


@pytest.mark.parametrize("operation", range(40))
def test_a_worker_may_die_before_any_operation(operation: int) -> None:
    world, turns = World(), Turns()
    turns.start(lambda before: world.separate("one", before))
    for _ in range(operation):
        turns.step(0)
        world.require_agreement()
    turns.kill(0)
    world.rescue()
    world.require_done()


def test_no_stem_has_its_name_before_all_are_complete() -> None:
    world, turns, seen = World(), Turns(), []
    turns.start(lambda before: world.separate("one", before))
    while not turns.ended[0]:
        turns.step(0)
        is_committed = any(key.endswith("/commit") for key in world.stems) or world.records()
        seen.append((bool(is_committed), any(key in world.stems for key in STEMS)))
    assert (False, True) not in seen
    assert (True, True) in seen


@given(st.lists(st.integers(0, 1), max_size=120), st.none() | st.integers(0, 80))
def test_two_workers_in_any_order_agree_on_one_attempt(order: list[int], death: int | None) -> None:
    """Both claim the song, as if Ray believed a living worker to be dead."""
    world, turns = World(), Turns()
    turns.start(lambda before: world.separate("one", before))
    for _ in range(4):  # it has claimed the song
        turns.step(0)
    holder = next(k for k in world.stems if "/claim-" in k)
    version = hashlib.md5(world.stems[holder]).hexdigest()
    turns.start(lambda before: world.separate("two", before, holder=f"{holder} {version}"))
    for moment, number in enumerate(order):
        if moment == death:
            turns.kill(number)
        turns.step(number)
        world.require_agreement()
    for number in (0, 1):
        while not turns.ended[number]:
            turns.step(number)
            world.require_agreement()
    world.rescue()
    world.require_done()


@given(st.lists(st.integers(0, 1), max_size=120), st.integers(0, 60))
def test_a_song_that_is_replaced_meanwhile_ends_as_its_new_version(
    order: list[int], moment: int
) -> None:
    world, turns = World(), Turns()
    turns.start(lambda before: world.separate("one", before))
    for _ in range(moment):
        turns.step(0)
    world.songs[SONG] = b"the new song"
    turns.start(lambda before: world.separate("two", before))
    for number in (*order, *[0] * 60, *[1] * 60):
        turns.step(number)
    world.rescue()
    world.require_done()
    assert [record.bytes for record in world.records()] == [len(b"the new song")]


def test_a_claim_of_a_living_run_is_respected() -> None:
    world, turns = World(), Turns()
    turns.start(lambda before: world.separate("one", before))
    for _ in range(5):
        turns.step(0)
    with pytest.raises(Busy) as busy:
        world.separate("two")
    assert "claim-0001" in busy.value.holder
    turns.kill(0)


def test_a_song_during_which_three_workers_of_a_run_died_is_set_aside_until_the_next_run() -> None:
    world = World()
    for _ in range(3):
        turns = Turns()
        turns.start(lambda before: world.separate("one", before))
        for _ in range(5):
            turns.step(0)
        turns.kill(0)
    with pytest.raises(SetAside, match="3 times"):
        world.separate("one")
    world.separate("another run")
    world.require_done()


def test_a_failed_song_leaves_nothing() -> None:
    world = World()
    before = dict(world.stems)

    def fail(work: SongWork) -> None:
        raise AudioError("damaged")

    with pytest.raises(AudioError, match="damaged"):
        complete(world.worker("one"), fail, run="one", worker="one", beat_s=1e6)
    assert world.stems == before


def test_a_file_of_others_is_not_replaced() -> None:
    world = World()
    world.stems[STEMS[0]] = b"precious"
    with pytest.raises(AudioError, match="exists already"):
        world.separate("one")
    assert world.stems[STEMS[0]] == b"precious"


def test_a_destination_whose_recipe_was_replaced_takes_no_stems_of_the_old_one() -> None:
    world = World()
    other = Recipe("memory://", "other", "1" * 64, dict(RECIPE.options))
    other.settle(MemoryStorage(world.stems), overwrite=True)
    with pytest.raises(StorageError, match="another model"):
        world.separate("one")
    assert not set(STEMS) & set(world.stems)


def test_a_song_that_changed_before_the_commit_is_refused() -> None:
    world = World()
    work = world.worker("one")
    world.songs[SONG] = b"another"
    with pytest.raises(Changed, match="run again"):
        work.require_unchanged()


def test_a_song_that_was_removed_meanwhile_keeps_its_stems() -> None:
    world = World()
    work = world.worker("one")
    del world.songs[SONG]
    work.require_unchanged()


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[]", b'{"format":1,"outputs":3}', b"\xff"])
def test_a_damaged_record_is_an_error_in_one_sentence(damaged: bytes) -> None:
    with pytest.raises(StorageError, match="damaged"):
        Record.parse(damaged)
