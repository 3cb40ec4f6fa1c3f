"""The page's folder: its limit, and what is removed from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bsmamba2 import AudioError
from bsmamba2.ui.storage import GB, Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path, 1000)


def test_uploads_and_results_count(storage: Storage) -> None:
    for folder in (storage.uploads, storage.results):
        (folder / "x").mkdir()
        (folder / "x" / "file").write_bytes(bytes(300))
    assert storage.used() == 600
    storage.require(400)
    with pytest.raises(AudioError, match="close other tabs of this page, remove songs, or start"):
        storage.require(401)


def test_what_is_on_its_way_counts(storage: Storage) -> None:
    with storage.reserved(600):
        with pytest.raises(AudioError, match="GB"), storage.reserved(600):
            pass
        storage.require(400)
    storage.require(1000)


def test_the_limit_is_at_most_half_of_what_is_free(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="of its") as caught:
        Storage(tmp_path, 1e30).require(1e20)
    limit = re.search(r"of its ([0-9.]+) GB", str(caught.value))
    assert limit is not None
    assert 0 < float(limit[1]) * GB < 1e18


def test_an_empty_folder_of_an_upload_is_removed_with_it(storage: Storage) -> None:
    paths = [storage.uploads / "0123" / name for name in ("a.wav", "b.wav")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(b"")
    storage.remove(paths[:1])
    assert paths[0].parent.exists()
    storage.remove(paths)
    assert list(storage.uploads.iterdir()) == []
