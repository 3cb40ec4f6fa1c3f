"""Object stores, through obstore: S3 and what speaks its protocol, Google Cloud, Azure."""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from bsmamba2.errors import printable
from bsmamba2_cluster.storage import (
    Changed,
    Entry,
    Missing,
    Storage,
    StorageError,
    UnsafeKey,
    require_safe,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from obstore.store import ClientConfig, RetryConfig

T = TypeVar("T")

PART_BYTES = 8 << 20
"""Bytes per part of an upload or download. S3 allows 10,000 parts, so 78 GiB per stem."""

PARTS_AT_ONCE = 4
"""Parts of one object that are uploaded at the same time."""

PAGE = 1000
ATTEMPTS = 5
"""How often an operation is tried: obstore repeats no request whose answer breaks off."""

ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")
"""Variables of the environment with the address of a server that speaks S3's protocol."""

CLIENT: ClientConfig = {
    "connect_timeout": "10s",
    "timeout": "10m",
    "read_timeout": "60s",
    "allow_http": True,  # for stores in a private network, if the endpoint's address says so
}
RETRIES: RetryConfig = {"max_retries": 10, "retry_timeout": timedelta(minutes=4)}

_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_STATUS = re.compile(r"\b([45]\d\d) [A-Z][a-zA-Z]+")
_PHRASES = ("timed out", "connection refused", "connection reset", "dns error", "error decoding")


class Exists(StorageError):  # noqa: N818 - a state of the object, not a fault
    """An object that should only be created."""


class Unreachable(StorageError):  # noqa: N818 - a state of the store
    """A request without a usable answer. Every operation may be repeated."""


class ObjectStorage(Storage):
    """A prefix of a bucket. obstore signs, retries and splits requests."""

    def __init__(self, scheme: str, bucket: str, prefix: str) -> None:
        self._where = scheme, bucket, prefix
        self._prefix = prefix
        self.address = f"{scheme}://{bucket}" + (f"/{prefix}" if prefix else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._where  # without credentials: each machine has its own

    @cached_property
    def _store(self) -> Any:
        scheme, bucket, _ = self._where
        require_endpoints()
        with self._errors("cannot be opened"):
            return from_url(f"{scheme}://{bucket}", client_options=CLIENT, retry_config=RETRIES)

    def pages(
        self, prefix: str = "", refused: Callable[[str, StorageError], object] | None = None
    ) -> Iterator[list[Entry]]:
        top = self._full(prefix) if prefix else self._prefix
        yield from self._pages(top, None, refused or (lambda *_: None))

    def _pages(
        self, folder: str, last: str | None, refused: Callable[[str, StorageError], object]
    ) -> Iterator[list[Entry]]:
        """obstore ends a listing at a key that it cannot represent; then folders are listed.

        So such a key hides only what is in its own folder and below, which is reported.
        """
        pages: Iterator[Any] | None = None

        def following() -> Any:
            nonlocal pages
            if pages is None:  # at first, and after an answer that broke off
                pages = iter(
                    obstore.list(self._store, folder or None, offset=last, chunk_size=PAGE)
                )
            try:
                return next(pages, None)
            except BaseException:
                pages = None
                raise

        while True:
            try:
                page = self._repeat(following, "cannot be listed")
            except UnsafeKey:
                break
            if page is None:
                return
            last = page[-1]["path"]
            yield [entry for meta in page if (entry := self._entry(meta)) is not None]
        look = partial(obstore.list_with_delimiter, self._store, folder or None)
        try:
            level: Any = self._repeat(look, "cannot be listed")
        except UnsafeKey as error:
            refused(self._relative(folder), error)
            return
        here = [meta for meta in level["objects"] if last is None or meta["path"] > last]
        if here:
            yield [entry for meta in here if (entry := self._entry(meta)) is not None]
        for below in level["common_prefixes"]:
            if last is None or f"{below}0" > last:  # "0" follows "/"
                yield from self._pages(below, last, refused)

    def head(self, key: str) -> Entry | None:
        def look() -> Entry | None:
            return self._entry(obstore.head(self._store, self._full(key)))

        with suppress(Missing):
            return self._repeat(look, "cannot be read", key)
        return None

    def read(self, key: str, limit_bytes: int = 1 << 20) -> bytes | None:
        def get() -> bytes:
            found = obstore.get(self._store, self._full(key))
            if found.meta["size"] > limit_bytes:
                raise StorageError(
                    f"{self.address_of(key)} must have at most {limit_bytes:,} bytes; got "
                    f"{found.meta['size']:,}"
                )
            return bytes(found.bytes())

        with suppress(Missing):
            return self._repeat(get, "cannot be read", key)
        return None

    def download(self, entry: Entry, path: Path) -> None:
        with path.open("xb") as file:
            for start in range(0, entry.size, PART_BYTES):
                file.write(self._part(entry, start, min(start + PART_BYTES, entry.size)))

    def _part(self, entry: Entry, start: int, end: int) -> bytes:
        options: Any = {"range": (start, end), "if_match": f'"{entry.version}"'}

        def get() -> bytes:
            found = obstore.get(self._store, self._full(entry.key), options=options)
            if _bare(found.meta["e_tag"]) != entry.version:
                raise Changed(self._changed(entry))
            return bytes(found.bytes())

        try:
            return self._repeat(get, "cannot be read", entry.key)
        except Missing:
            raise Changed(self._changed(entry)) from None

    def create(self, key: str, data: bytes) -> bool:
        def put() -> bool:
            try:
                with self._errors("cannot be written", key):
                    obstore.put(self._store, self._full(key), data, mode="create")
                    return True
            except (Exists, Unreachable):
                # Either the key is taken, perhaps by this call, whose answer was lost and which was
                # sent again; or nothing is known.
                stored = self.read(key, max(1 << 20, len(data)))
                if stored is None:
                    raise
                return stored == data

        return self._repeat(put, "cannot be written", key)

    def replace(self, key: str, data: bytes) -> None:
        def put() -> None:
            obstore.put(self._store, self._full(key), data, use_multipart=False)

        self._repeat(put, "cannot be written", key)

    def upload(self, path: Path, key: str) -> None:
        def put() -> None:
            obstore.put(
                self._store,
                self._full(key),
                path,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )

        self._repeat(put, "cannot be written", key)

    def copy(self, source: str, target: str) -> bool:
        def copy() -> bool:
            obstore.copy(self._store, self._full(source), self._full(target))
            return True

        with suppress(Missing):
            return self._repeat(copy, "cannot be written", target)
        return False

    def delete(self, keys: Iterable[str]) -> None:
        left = iter(keys)
        while some := list(islice(left, PAGE)):
            paths = [self._full(key) for key in some]
            with suppress(Missing):
                self._repeat(partial(obstore.delete, self._store, paths), "cannot be removed")

    def _repeat(self, operation: Callable[[], T], what: str, key: str = "") -> T:
        """Does an operation, and again after an answer that broke off."""
        for attempt in range(ATTEMPTS):
            try:
                with self._errors(what, key):
                    return operation()
            except Unreachable:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(0.2 * 2**attempt)
        raise AssertionError

    def _full(self, key: str) -> str:
        require_safe(key, self._prefix)
        return f"{self._prefix}/{key}".strip("/")

    def _relative(self, path: str) -> str:
        return path.removeprefix(self._prefix).strip("/")

    def _entry(self, meta: Any) -> Entry | None:
        key = self._relative(meta["path"])
        if not key:
            return None
        return Entry(key, meta["size"], _bare(meta["e_tag"]), meta["last_modified"])

    def _changed(self, entry: Entry) -> str:
        return (
            f"{self.address_of(entry.key)} was replaced or removed after it was listed: run again"
        )

    @contextmanager
    def _errors(self, what: str, key: str = "") -> Iterator[None]:
        """Turns obstore's errors into ours, which quote no address, header or body of a request."""
        where = self.address_of(printable(key, 1100)) if key else self.address
        try:
            yield
        except InvalidPathError:
            raise UnsafeKey(
                f"{where} has a key with an empty part, . or .., or a control character: what is "
                "in the same folder is left out; rename it"
            ) from None
        except PreconditionError:
            raise Changed(
                f"{where} was replaced or removed after it was listed: run again"
            ) from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StorageError(
                f"{where} {what} ({cause(error)}): check the credentials in the environment and "
                "what they allow"
            ) from None
        except FileNotFoundError:
            raise Missing(f"{where} {what}: it does not exist") from None
        except AlreadyExistsError:
            raise Exists(f"{where} {what} (it exists)") from None
        except BaseError as error:
            raise Unreachable(
                f"{where} {what} ({cause(error)}): check the endpoint, the bucket and the network"
            ) from None


def require_endpoints() -> None:
    """Requires the endpoints in the environment to be addresses: obstore crashes at others.

    Raises:
        StorageError: one is not, or has credentials or options in it. It is not quoted.
    """
    for name in ENDPOINTS:
        value = os.environ.get(name)
        try:
            parts = urlsplit(value or "http://none")
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
            is_plain = not ({"@", "?", "#"} & set(value or "")) and parts.port != 0
        except ValueError:
            is_address = is_plain = False
        if not (is_address and is_plain):
            raise StorageError(
                f"{name} must be an address like http://host:9000, without a user, a password or "
                "options: put credentials into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )


def cause(error: Exception) -> str:
    """Returns the cause of obstore's error without its text, which may quote signed requests."""
    text = str(error)[: 1 << 16]
    code, status = _CODE.search(text), _STATUS.search(text)
    phrase = next((phrase for phrase in _PHRASES if phrase in text.lower()), "")
    known = [status[1] if status else "", code[1] if code else "", phrase]
    return " ".join(filter(None, known)) or type(error).__name__


def _bare(etag: str | None) -> str:
    """Returns an ETag without quotes, which some stores leave out in listings."""
    return (etag or "").removeprefix("W/").strip('"')
