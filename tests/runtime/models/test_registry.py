"""Models that have a name: the shipped ones, and published ones of the catalogues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bsmamba2 import ModelError
from bsmamba2.models import registry
from bsmamba2.models.catalogue import Published, PublishedFile, Source
from bsmamba2.models.registry import (
    DEFAULT,
    PUBLISHED,
    Member,
    find_members,
    find_path,
    find_published,
    hint,
    published,
    require_published,
    settings_of,
    shipped,
    user_catalogue,
    using_catalogue,
)
from support.published import cached_file, make_published

VOICE = make_published()
BAG = make_published(
    "bag",
    stems=("drums", "bass"),
    files=tuple(
        PublishedFile((Source(f"https://example.org/{n}.th", 5, str(n) * 64),), (stem,))
        for n, stem in enumerate(("drums", "bass"))
    ),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BSMAMBA2_CATALOGUE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def voice(monkeypatch: pytest.MonkeyPatch) -> Published:
    """A published model that is not downloaded; with BAG, the only ones."""
    monkeypatch.setattr(registry, "PUBLISHED", (VOICE, BAG))
    return VOICE


def fill(path: Path, content: bytes) -> None:
    """Writes a file as if it had been downloaded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_catalogue(path: Path, **changes: Any) -> Path:
    """Writes a catalogue of one model."""
    model = {
        "name": "mine",
        "family": "bs_roformer",
        "purpose": "vocals",
        "stems": ["vocals"],
        "licence": "MIT",
        "files": [{"url": "https://example.org/mine.ckpt", "bytes": 5, "sha256": "c" * 64}],
        "settings": {"hop": 512},
    }
    path.write_text(json.dumps({"format": 1, "models": [model | changes]}))
    return path


def test_a_shipped_name_is_found_in_the_package() -> None:
    assert find_path(DEFAULT) == shipped()[DEFAULT]


def test_a_published_name_is_found_once_it_is_downloaded(voice: Published) -> None:
    path = cached_file(voice).path
    fill(path, b"12345")
    assert find_path("voice") == path
    assert find_path("another") is None


def test_a_model_that_is_not_downloaded_is_an_error_with_the_command(cache: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find_path("bs_mamba2_vocals")
    assert str(caught.value) == (
        "bs_mamba2_vocals is not downloaded yet: run bsmamba2 models fetch bs_mamba2_vocals "
        "(193 MB, licence of the weights not stated)"
    )
    assert not cache.exists()


def test_a_model_of_several_files_is_here_when_all_are(voice: Published, cache: Path) -> None:
    fill(cache / "models/bag_drums.th", b"12345")
    with pytest.raises(ModelError, match="bag is not downloaded yet"):
        find_members("bag")
    fill(cache / "models/bag_bass.th", b"12345")
    assert find_members("bag") == (
        Member(cache / "models/bag_drums.th", ("drums",)),
        Member(cache / "models/bag_bass.th", ("bass",)),
    )
    with pytest.raises(ModelError, match="bag is made of 2 files.*use one of them, .*drums.th"):
        find_path("bag")


def test_a_model_of_one_file_is_its_own_only_member(voice: Published) -> None:
    fill(cached_file(voice).path, b"12345")
    assert find_members("voice") == (Member(cached_file(voice).path, ("vocals",)),)
    assert find_members("another") == ()


@pytest.mark.parametrize(
    ("name", "fix"), [("voise", "did you mean voice?"), ("q", "bsmamba2 models lists them")]
)
def test_an_unknown_published_name_is_an_error_with_the_nearest_one(
    voice: Published, name: str, fix: str
) -> None:
    assert find_published("voice") is voice
    with pytest.raises(ModelError) as caught:
        find_published(name)
    assert str(caught.value) == f"no published model is called {name!r}: {fix}"


def test_a_shipped_model_need_not_be_downloaded() -> None:
    with pytest.raises(ModelError, match=f"{DEFAULT} is in the package already"):
        find_published(DEFAULT)


def test_a_hint_names_the_nearest_model_or_nothing(voice: Published) -> None:
    assert hint("smal") == f"did you mean {DEFAULT}?"
    assert hint("nothing like it") == ""


def test_a_hint_recognises_the_name_of_a_published_file() -> None:
    assert hint("model_bs_roformer_ep_317_sdr_12.9755") == "did you mean bs_roformer_ep_317?"
    assert hint("955717e8-8726e21a.th") == "did you mean htdemucs?"


def test_a_downloaded_file_that_has_changed_is_refused(voice: Published, tmp_path: Path) -> None:
    path = cached_file(voice).path
    require_published(path, "a" * 64)
    require_published(tmp_path / "mine.ckpt", "b" * 64)
    with pytest.raises(ModelError, match="not the published file.*fetch voice, which downloads it"):
        require_published(path, "b" * 64)


def test_settings_are_found_by_the_hash_of_any_published_file() -> None:
    bag = find_published("htdemucs_ft")
    for file in bag.files:
        for source in file.sources:
            assert source.sha256 is not None
            assert settings_of(source.sha256) == bag.settings
    assert settings_of("d" * 64).stated() == ()


def test_a_users_catalogue_extends_the_one_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_catalogue(tmp_path / "mine.json")
    monkeypatch.setenv("BSMAMBA2_CATALOGUE", str(path))
    assert [model.name for model in published()] == [*(m.name for m in PUBLISHED), "mine"]
    assert settings_of("c" * 64).hop == 512
    assert hint("mime") == "did you mean mine?"


def test_a_chosen_catalogue_replaces_that_of_the_environment_while_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSMAMBA2_CATALOGUE", str(tmp_path / "other.json"))
    with using_catalogue(write_catalogue(tmp_path / "mine.json")):
        assert published()[-1].name == "mine"
    assert user_catalogue() == tmp_path / "other.json"


def test_a_changed_catalogue_is_read_again(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path / "mine.json")
    with using_catalogue(path):
        write_catalogue(path, name="renamed")
        assert published()[-1].name == "renamed"


@pytest.mark.parametrize("name", ["bs_mamba2_vocals", DEFAULT])
def test_a_known_name_cannot_be_used_again(tmp_path: Path, name: str) -> None:
    path = write_catalogue(tmp_path / "mine.json", name=name)
    with pytest.raises(ModelError, match=f"must not have the name {name}"), using_catalogue(path):
        pass


def test_a_known_file_cannot_be_listed_again(tmp_path: Path) -> None:
    sha256 = PUBLISHED[0].files[0].sources[0].sha256
    files = [{"url": "https://example.org/copy.ckpt", "sha256": sha256}]
    path = write_catalogue(tmp_path / "mine.json", files=files)
    with (
        pytest.raises(ModelError, match="must not have the sha256 .*bs_mamba2_vocals has"),
        using_catalogue(path),
    ):
        pass


def test_a_catalogues_path_is_printed_in_one_line(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path / "a\nb.json", name=DEFAULT)
    with pytest.raises(ModelError) as caught, using_catalogue(path):
        pass
    assert str(caught.value).isprintable()


def test_a_missing_catalogue_is_an_error_with_its_name(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match="the catalogue .*none.json is not a file: check its name"),
        using_catalogue(tmp_path / "none.json"),
    ):
        pass
