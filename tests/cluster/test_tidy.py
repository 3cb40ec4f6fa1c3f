"""What is checked and removed before a run."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.recipe import FOLDER
from bsmamba2_cluster.record import WORK, record_key
from bsmamba2_cluster.storage import Storage, StorageError
from bsmamba2_cluster.tidy import KEPT, remove_leftovers, require_conditional_puts
from support.memory_storage import NOW, MemoryStorage


class CarelessStorage(MemoryStorage):
    """Ignores the condition, as some servers do."""

    def create(self, key: str, data: bytes) -> bool:
        self.objects[key] = data
        return True


def test_a_store_that_ignores_conditions_is_refused_and_left_clean() -> None:
    storage = CarelessStorage({})
    with pytest.raises(StorageError, match="If-None-Match"):
        require_conditional_puts(storage)
    assert storage.objects == {}


def test_a_store_that_keeps_conditions_tells_its_time(address: str) -> None:
    storage: Storage = open_storage(address)
    assert require_conditional_puts(storage).tzinfo is not None
    assert list(storage.pages()) == []


def test_leftovers_are_removed_but_nothing_that_is_needed() -> None:
    kept = {f"{WORK}/busy/v/claim-0001", f"{WORK}/cut/v/commit", f"{WORK}/cut/v/1/0", f"{FOLDER}/x"}
    gone = {f"{WORK}/done/v/claim-0001", f"{WORK}/done/v/1/0", f"{WORK}/done/v/commit"}
    storage = MemoryStorage(dict.fromkeys([*kept, *gone, record_key("done", "v")], b""))
    assert remove_leftovers(storage, NOW) == 3
    assert set(storage.objects) == kept | {record_key("done", "v")}
    remove_leftovers(storage, NOW + KEPT + timedelta(seconds=1))
    assert f"{WORK}/busy/v/claim-0001" not in storage.objects
    assert f"{WORK}/cut/v/1/0" in storage.objects
