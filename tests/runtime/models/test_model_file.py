"""The file that a model's name or path stands for, and the errors where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bsmamba2 import ModelError, Separator
from bsmamba2.files.hashing import file_sha256
from bsmamba2.models import registry
from bsmamba2.models.model_file import (
    SUFFIXES,
    find_model_path,
    from_any_folder,
    open_checkpoint,
)
from bsmamba2.models.registry import DEFAULT, PUBLISHED, shipped
from support.models import random_weights, write_checkpoint
from support.published import cached_file, make_published

PUBLISHED_NAME = PUBLISHED[0].name


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkpoint in the cache, as if it were the published one."""
    weights = write_checkpoint(tmp_path / f"{PUBLISHED_NAME}.safetensors")
    published = make_published(
        PUBLISHED_NAME,
        f"https://example.org/{weights.name}",
        size=weights.stat().st_size,
        sha256=file_sha256(weights),
    )
    monkeypatch.setattr(registry, "PUBLISHED", (published,))
    path = cached_file(published).path
    path.parent.mkdir(parents=True)
    shutil.copy(weights, path)
    return path


@pytest.mark.parametrize("model", [None, "", DEFAULT])
def test_without_a_name_the_model_is_the_shipped_one(model: str | None) -> None:
    assert find_model_path(model) == shipped()[DEFAULT]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_known_suffix_is_a_model(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"voice{suffix}"
    path.touch()
    assert find_model_path(path) == path


def test_a_file_with_another_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").touch()
    with pytest.raises(ModelError, match=r"model must be a file in \.onnx, \.engine.*; got '.*tfl"):
        find_model_path(tmp_path / "model.tflite")


@pytest.mark.parametrize("name", ["none.engine", "none.onnx", "x" * 300 + ".ckpt", "folder/none"])
def test_a_missing_model_file_is_an_error(name: str) -> None:
    with pytest.raises(ModelError, match="there is no model file .*: check its name and folder"):
        Separator(name)


def test_an_unknown_name_is_an_error_with_the_nearest_one() -> None:
    message = r"there is no model called 'bs_mamba2_voclas': did you mean bs_mamba2_vocals\?"
    with pytest.raises(ModelError, match=message):
        find_model_path("bs_mamba2_voclas")


def test_an_unknown_name_like_no_other_is_an_error_that_explains_how_to_get_a_model() -> None:
    with pytest.raises(ModelError, match=r"no model called 'x': choose as model .* models fetch"):
        find_model_path("x")


def test_a_copy_without_weights_explains_how_to_get_a_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "shipped", dict)
    with pytest.raises(ModelError, match="model must be given.*choose as model .* models fetch"):
        find_model_path(None)


def test_a_published_model_must_be_downloaded_first() -> None:
    name = PUBLISHED[0].name
    with pytest.raises(ModelError, match=f"{name} is not downloaded yet: run bsmamba2 models fet"):
        Separator(name, "cpu")


@pytest.mark.parametrize("find", [find_model_path, open_checkpoint, from_any_folder])
def test_a_name_stands_for_the_model_in_every_call_even_next_to_a_file_of_that_name(
    fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: Callable[[str], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT).mkdir()
    (tmp_path / PUBLISHED_NAME).write_bytes(b"not a model")
    for name in (DEFAULT, PUBLISHED_NAME):
        assert find(name)


def test_the_checkpoint_of_a_name_is_that_of_its_file(fetched: Path) -> None:
    for name, path in ((PUBLISHED_NAME, fetched), (DEFAULT, shipped()[DEFAULT])):
        assert open_checkpoint(name).sha256 == open_checkpoint(path).sha256
        assert open_checkpoint(name).name == name


def test_a_published_file_that_has_changed_is_no_checkpoint(fetched: Path) -> None:
    write_checkpoint(fetched, random_weights(seed=1))
    with pytest.raises(ModelError, match="is not the published file"):
        open_checkpoint(PUBLISHED_NAME)


@pytest.mark.parametrize("suffix", [".onnx", ".engine"])
def test_an_export_is_no_checkpoint_and_the_error_says_what_to_give(
    tmp_path: Path, suffix: str
) -> None:
    (tmp_path / f"voice{suffix}").touch()
    with pytest.raises(ModelError, match=r"got 'voice\..*', which was exported.* give that check"):
        open_checkpoint(tmp_path / f"voice{suffix}")


def test_a_path_may_start_with_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write_checkpoint(tmp_path / "voice.safetensors")
    assert find_model_path("~/voice.safetensors") == path
    with pytest.raises(ModelError, match="there is no model file '~nobody/x.ckpt'"):
        find_model_path("~nobody/x.ckpt")


def test_from_any_folder_a_name_stays_a_name_and_a_path_becomes_absolute(
    fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "voice.safetensors")
    assert from_any_folder(PUBLISHED_NAME) == PUBLISHED_NAME
    for name in ("voice.safetensors", "./none.ckpt"):
        assert from_any_folder(name) == str(tmp_path / name)
