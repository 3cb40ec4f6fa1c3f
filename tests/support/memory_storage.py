"""A storage in memory, and workers on it that take turns: in any order, and dying anywhere."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bsmamba2_cluster.storage import Changed, Entry, Storage, StorageError, require_safe

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryStorage(Storage):
    """Objects in a dictionary. ``before`` is called before every operation and may raise."""

    def __init__(self, objects: dict[str, bytes], before: Callable[[], object] = lambda: None):
        self.address, self.objects, self.before = "memory://", objects, before

    def pages(
        self, prefix: str = "", refused: Callable[[str, StorageError], object] | None = None
    ) -> Iterator[list[Entry]]:
        self.before()
        folder = f"{prefix}/" if prefix else ""
        found = [self._entry(key) for key in sorted(self.objects) if key.startswith(folder)]
        return iter([found] if found else [])

    def head(self, key: str) -> Entry | None:
        self.before()
        return self._entry(key) if key in self.objects else None

    def read(self, key: str, limit_bytes: int = 1 << 20) -> bytes | None:
        self.before()
        return self.objects.get(key)

    def download(self, entry: Entry, path: Path) -> None:
        self.before()
        if entry.key not in self.objects or self._entry(entry.key).version != entry.version:
            raise Changed("changed: run again")
        path.write_bytes(self.objects[entry.key])

    def create(self, key: str, data: bytes) -> bool:
        self.before()
        require_safe(key)
        return self.objects.setdefault(key, data) == data

    def replace(self, key: str, data: bytes) -> None:
        self.before()
        self.objects[key] = data

    def upload(self, path: Path, key: str) -> None:
        self.replace(key, path.read_bytes())

    def copy(self, source: str, target: str) -> bool:
        self.before()
        if source not in self.objects:
            return False
        self.objects[target] = self.objects[source]
        return True

    def delete(self, keys: Iterable[str]) -> None:
        for key in list(keys):  # one request each, the worst case
            self.before()
            self.objects.pop(key, None)

    def _entry(self, key: str) -> Entry:
        data = self.objects[key]
        return Entry(key, len(data), hashlib.md5(data).hexdigest(), NOW)


class Killed(BaseException):
    """The death of a worker."""


class Turns:
    """Threads that each do one storage operation when it is their turn."""

    def __init__(self) -> None:
        self._may_go: list[threading.Semaphore] = []
        self._waits: list[threading.Semaphore] = []
        self._dead: list[bool] = []
        self.ended: list[bool] = []

    def start(self, work: Callable[[Callable[[], None]], object]) -> None:
        """Starts ``work(before)`` in a thread, which waits before its first operation."""
        number = len(self.ended)
        self._may_go.append(threading.Semaphore(0))
        self._waits.append(threading.Semaphore(0))
        self._dead.append(False)
        self.ended.append(False)

        def before() -> None:
            if not self._dead[number]:
                self._waits[number].release()
                self._may_go[number].acquire()
            if self._dead[number]:
                raise Killed

        def run() -> None:
            try:
                work(before)
            except (Killed, StorageError):  # a song that changed, or is busy
                pass
            finally:
                self.ended[number] = True
                self._waits[number].release()

        threading.Thread(target=run, daemon=True).start()
        self._waits[number].acquire()

    def step(self, number: int) -> None:
        """Lets a worker do one operation."""
        if not self.ended[number]:
            self._may_go[number].release()
            self._waits[number].acquire()

    def kill(self, number: int) -> None:
        """Ends a worker; none of its cleaning up has an effect."""
        if not self.ended[number]:
            self._dead[number] = True
            self._may_go[number].release()
            while not self.ended[number]:
                self._waits[number].acquire(timeout=1)
