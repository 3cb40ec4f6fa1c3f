"""The downloaded files of published models: where they are, and how their content is verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from bsmamba2 import ModelError
from bsmamba2.models.cached_file import CachedFile, cached_files, choose_sources, find_cached
from bsmamba2.models.catalogue import Published, PublishedFile, Source
from support.published import cached_file, make_published
from support.server import Server, corrupting

TWO_SOURCES = make_published(
    files=(
        PublishedFile(
            (
                Source("https://example.org/x.th", 5, "a" * 64),
                Source("https://example.org/y.safetensors", 6, "b" * 64),
            ),
            ("vocals",),
        ),
    )
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("bsmamba2.models.download.PAUSE", 0.0)
    return tmp_path / "cache"


def fill(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def without_hash(url: str, size: int | None = None) -> CachedFile:
    """A model whose SHA-256 nobody publishes, nor perhaps its size."""
    source = Source(url, size, None)
    return cached_file(make_published(files=(PublishedFile((source,), ("vocals",)),)))


def test_a_file_has_the_name_of_its_model_in_the_cache(cache: Path) -> None:
    assert [cached.path for cached in cached_files(TWO_SOURCES)] == [
        cache / "models" / "voice.th",
        cache / "models" / "voice.safetensors",
    ]


def test_a_file_counts_as_downloaded_once_it_has_the_right_size() -> None:
    cached = cached_file(TWO_SOURCES)
    assert not cached.is_fetched
    fill(cached.path, b"1234")
    assert not cached.is_fetched
    fill(cached.path, b"12345")
    assert cached.is_fetched


def test_an_unreadable_cache_contains_no_file(cache: Path) -> None:
    cache.mkdir()
    (cache / "models").touch()
    assert find_cached(TWO_SOURCES) == ()


def test_a_mirrors_file_serves_as_well_and_the_publishers_comes_first() -> None:
    first, second = cached_files(TWO_SOURCES)
    fill(second.path, b"123456")
    assert find_cached(TWO_SOURCES) == (second,)
    fill(first.path, b"12345")
    assert find_cached(TWO_SOURCES) == (first,)


def test_mirrors_are_chosen_by_their_number() -> None:
    first, second = cached_files(TWO_SOURCES)
    assert (choose_sources(TWO_SOURCES), choose_sources(TWO_SOURCES, 1)) == ((first,), (second,))
    with pytest.raises(ModelError, match="mirror must be 0 to 1 for voice; got 2"):
        choose_sources(TWO_SOURCES, 2)
    with pytest.raises(ModelError, match="mirror must be left out for voice; got 1"):
        choose_sources(make_published(), 1)


@pytest.mark.parametrize("size", [None, 5])
def test_a_file_without_a_published_hash_is_pinned_by_the_first_download(size: int | None) -> None:
    with Server(b"first") as server:
        cached = without_hash(server.url, size)
        cached.fetch()
        assert cached.path.read_bytes() == b"first"
        pinned = cached.sha256
        cached.fetch()
    assert (cached.sha256, cached.is_fetched) == (pinned, True)
    assert pinned == "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"


@pytest.mark.parametrize("size", [None, 5])
def test_another_file_than_the_pinned_one_is_refused_until_the_pin_is_deleted(
    size: int | None,
) -> None:
    with Server(b"first") as server:
        without_hash(server.url, size).fetch()
    with Server(b"other") as server:
        cached = without_hash(server.url, size)
        cached.path.unlink()
        with pytest.raises(ModelError, match="not the file of the first download .*delete .*pin"):
            cached.fetch()
        assert not cached.path.exists()
        cached.pin.unlink()
        assert cached.fetch().read_bytes() == b"other"


def test_a_wrong_file_with_a_published_hash_is_refused() -> None:
    with Server(b"12345", [corrupting]) as server:
        model = make_published(url=server.url)
        with pytest.raises(ModelError, match="is not the published file"):
            cached_file(model).fetch()


def test_a_file_without_a_pin_is_not_taken_as_downloaded() -> None:
    cached = without_hash("https://example.org/x.ckpt", 5)
    fill(cached.path, b"12345")
    assert not cached.is_fetched


@pytest.mark.parametrize("model", [make_published(), TWO_SOURCES], ids=["one", "two sources"])
def test_every_source_is_listed_once(model: Published) -> None:
    assert len(list(cached_files(model))) == len(model.files[0].sources)
