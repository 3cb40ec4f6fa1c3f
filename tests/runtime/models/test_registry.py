"""Models that have a name: the shipped ones, and published checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from bsmamba2 import ModelError
from bsmamba2.models import registry
from bsmamba2.models.registry import (
    DEFAULT,
    PUBLISHED,
    Published,
    find_path,
    find_published,
    hint,
    require_published,
    shipped,
)

VOICE = Published("voice", "https://example.org/voice.ckpt", 5, "a" * 64, "MIT", "vocals")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def voice(monkeypatch: pytest.MonkeyPatch) -> Published:
    """A published model that is not downloaded; the only one."""
    monkeypatch.setattr(registry, "PUBLISHED", (VOICE,))
    return VOICE


def fill(model: Published, content: bytes) -> None:
    """Writes the file as if it had been downloaded."""
    model.path.parent.mkdir(parents=True, exist_ok=True)
    model.path.write_bytes(content)


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.name)
def test_published_models_are_downloaded_over_https_and_verified(model: Published) -> None:
    assert model.url.startswith("https://")
    assert model.path.stem == model.name
    assert len(model.sha256) == 64


def test_a_model_is_in_the_cache_under_its_own_file_name(voice: Published, cache: Path) -> None:
    assert voice.path == cache / "models" / "voice.ckpt"


def test_a_model_counts_as_downloaded_once_its_file_has_the_right_size(voice: Published) -> None:
    assert not voice.is_fetched
    fill(voice, b"1234")
    assert not voice.is_fetched
    fill(voice, b"12345")
    assert voice.is_fetched


def test_an_unreadable_cache_contains_no_model(cache: Path) -> None:
    cache.mkdir()
    (cache / "models").touch()
    assert not any(model.is_fetched for model in PUBLISHED)


def test_a_shipped_name_is_found_in_the_package() -> None:
    assert find_path(DEFAULT) == shipped()[DEFAULT]


def test_a_published_name_is_found_once_it_is_downloaded(voice: Published) -> None:
    fill(voice, b"12345")
    assert find_path("voice") == voice.path
    assert find_path("another") is None


def test_a_model_that_is_not_downloaded_is_an_error_with_the_command(cache: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find_path("bs_mamba2_vocals")
    assert str(caught.value) == (
        "bs_mamba2_vocals is not downloaded yet: run bsmamba2 models fetch bs_mamba2_vocals "
        "(193 MB, licence of the weights not stated)"
    )
    assert not cache.exists()


@pytest.mark.parametrize(
    ("name", "fix"), [("voise", "did you mean voice?"), ("x", "choose from voice")]
)
def test_an_unknown_published_name_is_an_error_with_the_known_ones(
    voice: Published, name: str, fix: str
) -> None:
    assert find_published("voice") is voice
    with pytest.raises(ModelError) as caught:
        find_published(name)
    assert str(caught.value) == f"no published model is called {name!r}: {fix}"


def test_a_hint_names_the_nearest_model_or_nothing(voice: Published) -> None:
    assert hint("smal") == f"did you mean {DEFAULT}?"
    assert hint("nothing like it") == ""


def test_a_downloaded_file_that_has_changed_is_refused(voice: Published, tmp_path: Path) -> None:
    require_published(voice.path, "a" * 64)
    require_published(tmp_path / "mine.ckpt", "b" * 64)
    with pytest.raises(ModelError, match="run bsmamba2 models fetch voice, which downloads it ag"):
        require_published(voice.path, "b" * 64)
