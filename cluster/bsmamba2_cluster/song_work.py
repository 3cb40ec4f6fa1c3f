"""Exactly once: how the stems of one song appear, whatever dies.

In the destination, every song has an id (a digest of its key) and a version (a digest of its size,
its ETag and the recipe). A worker passes these points; each is one object:

    claim    work/ID/VERSION/claim-0001      created if absent: this worker separates the song
    staged   work/ID/VERSION/ATTEMPT/0 …     the stems, uploaded in parts under hidden names
    commit   work/ID/VERSION/commit          created if absent: names ONE complete attempt
    stems    albums/song_vocals.flac …       copied inside the store, only from that attempt
    record   records/ID/VERSION              created if absent, last: the song is done

Why this holds:

- *Two workers on one song* (two drivers, or Ray believes that a living worker is dead). Claims
  avoid it, but nothing depends on them. Both may upload; the commit chooses one attempt, and
  everyone copies from that one, so stems are never mixed, even if two kinds of processors give
  different last bits. Copying twice gives the same.
- *A death before the commit* leaves a claim and staged files, nothing under a final name. The next
  worker takes the song over, and its attempt has its own folder.
- *A death between commit and record* may leave some stems. Any later worker copies the rest from
  the committed attempt, without separating, and writes the record. So staged files are removed only
  after the record exists, or by the attempt that made them.
- *A late commit*: a slow worker may create a commit after another one was published, recorded and
  removed. So `publish` looks for a record after reading the commit, and finds it.
- *A lost answer*: a conditional put that succeeded is sent again and refused. The stored object is
  compared with what was sent; claims, commits and records hold a random number.
- *The song was replaced between runs*: its version differs, so it is not done. Before any stem is
  copied, records of other versions are removed, so no record stands for stems that are being
  replaced. *While it is separated*: it is read with its ETag as a condition, and compared before
  the commit and again before the record.
- *Other options*: a destination has one recipe (recipe.py). Another one is refused, unless the
  caller overwrites.
- *A claim whose holder died*: the holder rewrites its claim every few seconds. A worker that
  sees a claim unchanged for long enough takes the song over by creating the next claim; no clocks
  are compared.
  A claim of the same run is known to be dead, because Ray runs a song again only after its worker
  died; three of them are three deaths, and the song is set aside.

- *The song was replaced, and workers with both versions copy stems at the same time*: a worker
  that finds after copying that it has the old version leaves a mark and then removes the other's
  record; the other looks for the mark after writing its record, and removes it. One of them sees
  the other, so no record is left, and the next run separates the song again.

What remains: a worker with the old version that copies late and dies before it leaves the mark. A
record of the new version then stands for stems of the old one. Stores have no conditional copy that
would prevent it; it takes a song that is replaced during a run, a worker that is suspended at that
moment, and its death.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bsmamba2 import AudioError
from bsmamba2_cluster.claim import Busy, Claim, SetAside, run_of
from bsmamba2_cluster.recipe import FOLDER
from bsmamba2_cluster.record import (
    RECORDS,
    WORK,
    Record,
    Stem,
    record_key,
    song_id,
    version_id,
)
from bsmamba2_cluster.storage import Changed, Entry, Storage, StorageError, UnsafeKey

if TYPE_CHECKING:
    from pathlib import Path

    from bsmamba2_cluster.recipe import Recipe

DEATHS = 3
"""A song during which so many workers of one run died is set aside."""


class SongWork:
    """The work on one song: claim, upload, commit, publish, record.

    Args:
        source, destination: where the song is and where its stems go.
        song: its entry in the source.
        recipe: the destination's.
        overwrite: whether files of others may be replaced.
    """

    def __init__(
        self,
        source: Storage,
        destination: Storage,
        song: Entry,
        recipe: Recipe,
        *,
        overwrite: bool = False,
    ) -> None:
        self._source, self._destination, self._recipe = source, destination, recipe
        self.song, self._overwrite = song, overwrite
        self._id = song_id(song.key)
        self._version = version_id(song.size, song.version, recipe)
        self._folder = f"{WORK}/{self._id}/{self._version}"
        self._commit = f"{self._folder}/commit"
        self._conflict = f"{WORK}/{self._id}/conflict/commit"
        self._record = record_key(self._id, self._version)
        self._attempt = secrets.token_hex(8)

    def record(self) -> Record | None:
        """Reads the song's record; None if it is not done."""
        data = self._destination.read(self._record)
        return None if data is None else Record.parse(data)

    def claim(self, run: str, worker: str, beat_s: float, dead_holder: str = "") -> Claim:
        """Claims the song.

        Args:
            run: the id of this run: its workers' earlier claims are dead.
            worker: named in the claim.
            beat_s: how often the claim is renewed.
            dead_holder: a holder of :class:`Busy` that was seen unchanged for long enough.

        Raises:
            Busy: another run has claimed it.
            SetAside: this run's workers died with it :data:`DEATHS` times.
        """
        claims = [e for e in self._entries() if e.key.startswith(f"{self._folder}/claim-")]
        runs = [run_of(self._destination.read(claim.key)) for claim in claims]
        if claims and runs[-1] != run:
            holder = f"{claims[-1].key} {claims[-1].version}"
            if holder != dead_holder:
                raise Busy(holder)
        if runs.count(run) >= DEATHS:
            raise SetAside(
                f"its worker died {DEATHS} times while separating it, perhaps for lack of memory: "
                "it is set aside until the next run"
            )
        number = int(claims[-1].key[-4:]) + 1 if claims else 1
        claim = Claim(self._destination, f"{self._folder}/claim-{number:04}", run, worker)
        claim.start(beat_s)
        return claim

    def is_committed(self) -> bool:
        """Whether an attempt is complete, so that :meth:`publish` can do the rest."""
        return self._destination.head(self._commit) is not None

    def require_free(self, keys: list[str]) -> None:
        """Requires that the stems would replace nothing but stems of this song.

        Raises:
            UnsafeKey: a stem would be among the records, or has no safe key.
            AudioError: a file exists.
        """
        if reserved := [key for key in keys if key.startswith(f"{FOLDER}/")]:
            raise UnsafeKey(
                f"{self._destination.address_of(reserved[0])} is in {FOLDER}/, which is kept for "
                "records: move the song, or use another template"
            )
        taken = [key for key in keys if self._destination.head(key) is not None]
        if not taken or self._overwrite:
            return
        own = self._stems_in(self._keys())
        if foreign := [key for key in taken if key not in own]:
            raise AudioError(
                f"{self._destination.address_of(foreign[0])} exists already and is not a stem of "
                "this song: choose another destination, or allow overwriting with overwrite=True"
            )

    def require_unchanged(self) -> None:
        """Requires the song to be the listed one, or to be gone.

        Raises:
            Changed: it was replaced.
        """
        found = self._source.head(self.song.key)
        if found and (found.size, found.version) != (self.song.size, self.song.version):
            raise Changed(
                f"{self._source.address_of(self.song.key)} changed while it was separated: its "
                "stems are not kept; run again"
            )

    def commit(self, files: Mapping[str, tuple[Path, Stem]], facts: Mapping[str, Any]) -> None:
        """Uploads the finished stems under hidden names, and proposes this attempt.

        Raises:
            Changed, AudioError: as the methods above.
        """
        self.require_free([stem.key for _, stem in files.values()])
        for number, (path, _) in enumerate(files.values()):
            self._destination.upload(path, f"{self._folder}/{self._attempt}/{number}")
        self.require_unchanged()
        self._recipe.require_settled(self._destination)
        outputs = {name: stem for name, (_, stem) in files.items()}
        record = self._new_record(outputs, facts)
        self._destination.create(self._commit, record.to_bytes())

    def publish(self) -> Record:
        """Copies the committed stems to their names, writes the record, and removes the rest.

        Raises:
            StorageError: the committed stems are gone, and so is the record; or another version of
                the song was published meanwhile.
        """
        data = self._destination.read(self._commit)
        if data is None:
            return self._required_record(None)
        # A commit that was created after another was published, recorded and removed is too late.
        if (record := self.record()) is not None:
            self.clean()
            return record
        record = Record.parse(data)
        self._remove_other_versions(_keys_of(record))
        for number, stem in enumerate(record.outputs.values()):
            staged = f"{self._folder}/{record.attempt}/{number}"
            if not self._destination.copy(staged, stem.key):
                return self._required_record(data)
        try:
            self.require_unchanged()
        except Changed:
            self._declare_conflict(data)
            raise
        self._destination.create(self._record, data)
        if self._destination.head(self._conflict) is not None:
            self._destination.delete([self._record])
            raise StorageError("another version of it was separated at the same time: run again")
        self.clean()
        return record

    def discard(self) -> None:
        """Removes what this attempt uploaded, if it is not the committed one."""
        data = self._destination.read(self._commit)
        if data is None or Record.parse(data).attempt != self._attempt:
            mine = f"{self._folder}/{self._attempt}/"
            self._destination.delete(e.key for e in self._entries() if e.key.startswith(mine))

    def clean(self) -> None:
        """Removes the song's working files, the commit last."""
        keys = [entry.key for entry in self._entries() if entry.key != self._commit]
        self._destination.delete([*keys, self._commit])

    def _entries(self) -> list[Entry]:
        pages = self._destination.pages(self._folder)
        return sorted((entry for page in pages for entry in page), key=lambda entry: entry.key)

    def _new_record(self, outputs: Mapping[str, Stem], facts: Mapping[str, Any]) -> Record:
        song = self.song
        digest = self._recipe.digest
        return Record(
            song.key, song.size, song.version, digest, outputs, self._attempt, dict(facts)
        )

    def _required_record(self, commit: bytes | None) -> Record:
        record = self.record()
        if record is None:
            if commit is not None:  # some stems may have been copied
                self._declare_conflict(commit)
                self._destination.delete([self._commit])
            raise StorageError("its finished stems were removed by another run: run again")
        return record

    def _declare_conflict(self, commit: bytes) -> None:
        """Tells workers with another version that stems of this one may have replaced theirs.

        A record that exists is removed; a worker that has not written its record yet finds the
        mark after writing it. The mark lists the stems, so the next run knows them as the song's.
        """
        self._destination.replace(self._conflict, commit)
        self._remove_other_versions(_keys_of(Record.parse(commit)), self._conflict)

    def _keys(self) -> list[str]:
        """Returns the keys of all records and working files of the song, in any version."""
        folders = self._record.rpartition("/")[0], f"{WORK}/{self._id}"
        pages = (page for folder in folders for page in self._destination.pages(folder))
        return [entry.key for page in pages for entry in page]

    def _stems_in(self, keys: Iterable[str]) -> set[str]:
        """Returns the stems that the records and commits among some keys list."""
        stems: set[str] = set()
        for key in keys:
            if key.startswith(RECORDS) or key.endswith("/commit"):
                data = self._destination.read(key)
                with suppress(StorageError):
                    listed = Record.parse(data).outputs if data else {}
                    stems |= {stem.key for stem in listed.values()}
        return stems

    def _remove_other_versions(self, kept_stems: set[str], *kept: str) -> None:
        """Removes records of other versions, and then their stems that are not written again."""
        own = self._record, f"{self._folder}/", *kept
        others = [key for key in self._keys() if not key.startswith(own)]
        if not others:
            return
        stems = self._stems_in(others)
        self._destination.delete(sorted(others, key=lambda key: not key.startswith(RECORDS)))
        self._destination.delete(sorted(stems - kept_stems))


def _keys_of(record: Record) -> set[str]:
    return {stem.key for stem in record.outputs.values()}


def complete(
    work: SongWork,
    make: Callable[[SongWork], object],
    *,
    run: str,
    worker: str,
    beat_s: float,
    dead_holder: str = "",
) -> tuple[Record, bool]:
    """Takes a song through all points that it has not passed yet.

    Args:
        work: the song.
        make: separates it and calls :meth:`SongWork.commit`.
        run, worker, beat_s, dead_holder: as for :meth:`SongWork.claim`.

    Returns:
        The record, and whether the song was done before.

    Raises:
        Busy, SetAside: as :meth:`SongWork.claim`.
        Error: what ``make`` and the other methods raise.
    """
    if record := work.record():
        return record, True
    try:
        claim = work.claim(run, worker, beat_s, dead_holder)
    except SetAside:
        work.clean()
        raise
    try:
        if record := work.record():  # the claim's last holder had finished
            work.clean()
            return record, True
        if not work.is_committed():
            make(work)
        return work.publish(), False
    except BaseException:
        work.discard()
        raise
    finally:
        claim.release()
