"""Addresses, and what every storage promises."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.storage import Changed, Storage, StorageError, require_safe


@pytest.fixture
def storage(address: str) -> Storage:
    """An empty storage as another process gets it."""
    opened: Storage = pickle.loads(pickle.dumps(open_storage(address)))
    return opened


def keys(storage: Storage) -> list[str]:
    return [entry.key for page in storage.pages() for entry in page]


def test_an_object_is_created_once(storage: Storage) -> None:
    assert storage.create("a/b", b"mine")
    assert not storage.create("a/b", b"other")
    assert storage.create("a/b", b"mine")  # as after a lost answer
    assert storage.read("a/b") == b"mine"


def test_a_missing_object_is_none(storage: Storage) -> None:
    assert (storage.read("a"), storage.head("a"), storage.copy("a", "b")) == (None, None, False)
    assert keys(storage) == []


def test_files_are_uploaded_and_downloaded_whole(storage: Storage, tmp_path: Path) -> None:
    data = bytes(range(256)) * (90 << 10)  # several parts
    (tmp_path / "file").write_bytes(data)
    storage.upload(tmp_path / "file", "folder/file")
    entry = storage.head("folder/file")
    assert entry is not None
    storage.download(entry, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data


def test_a_replaced_object_is_not_downloaded(storage: Storage, tmp_path: Path) -> None:
    storage.replace("file", b"one")
    entry = storage.head("file")
    assert entry is not None
    storage.replace("file", b"two")
    with pytest.raises(Changed, match="run again"):
        storage.download(entry, tmp_path / "copy")


def test_a_copy_replaces_and_the_source_stays(storage: Storage) -> None:
    storage.replace("a", b"1")
    storage.replace("b/c", b"2")
    assert storage.copy("a", "b/c")
    assert storage.copy("a", "b/c")
    assert (storage.read("a"), storage.read("b/c")) == (b"1", b"1")


def test_removed_objects_are_gone_and_missing_ones_ignored(storage: Storage) -> None:
    storage.replace("a/b", b"1")
    storage.replace("a/c", b"2")
    storage.delete(["a/b", "nothing/here"])
    assert keys(storage) == ["a/c"]


def test_a_listing_has_every_key_below_a_folder_only(storage: Storage) -> None:
    for key in ("a/1", "a/b/2", "ab/3", "c"):
        storage.replace(key, b"x")
    assert sorted(keys(storage)) == ["a/1", "a/b/2", "ab/3", "c"]
    assert [e.key for page in storage.pages("a") for e in page] == ["a/1", "a/b/2"]


def test_a_large_object_is_not_read_into_memory(storage: Storage) -> None:
    storage.replace("large", bytes(2000))
    with pytest.raises(StorageError, match="1,000 bytes"):
        storage.read("large", 1000)


@pytest.mark.parametrize(
    "key", ["../x", "a/../../x", "/etc/x", "a//b", "a\nb", "x" * 1025, "", "."]
)
def test_an_unsafe_key_is_refused_by_every_writer(storage: Storage, key: str) -> None:
    for write in (storage.create, storage.replace):
        with pytest.raises(StorageError, match="cannot be"):
            write(key, b"x")
    with pytest.raises(StorageError):
        storage.copy("a", key)
    assert keys(storage) == []


@given(st.lists(st.sampled_from(["..", ".", "/", "a", "\\", " ", "\0", "ü", "~"])).map("".join))
def test_a_key_that_is_accepted_stays_in_its_folder(key: str) -> None:
    root = Path("/library/stems")
    try:
        require_safe(key)
    except StorageError:
        return
    resolved = Path(*(root / key).parts)
    assert ".." not in resolved.parts
    assert resolved.is_relative_to(root)
    assert resolved != root


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host/x", "must begin with"),
        ("s3://", "must name a bucket"),
        ("s3://key:secret@music/x", "no credentials"),
        ("s3://music/x?X-Amz-Signature=secret", "no credentials"),
        ("s3://music/a/../b", "cannot be used"),
        ("file://host/x", "without a machine"),
        ("", "must be a folder"),
    ],
)
def test_a_wrong_address_is_refused_without_quoting_secrets(address: str, message: str) -> None:
    with pytest.raises(StorageError, match=message) as refused:
        open_storage(address)
    assert "secret" not in str(refused.value)


def test_addresses_have_one_spelling(tmp_path: Path) -> None:
    assert open_storage("s3://music/a/").address == "s3://music/a"
    assert open_storage(f"file://{tmp_path}/a%20b").address == f"{tmp_path}/a b"
    assert open_storage(f"{tmp_path}/x/..").address == str(tmp_path)
