"""Demucs' bags as ensembles, and bags that cannot be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bsmamba2 import Ensemble, ModelError
from bsmamba2.models.demucs_bag import bag_ensemble, read_bag

FOUR = ("drums", "bass", "other", "vocals")
IDENTITY = [[float(row == column) for column in range(4)] for row in range(4)]


def ensemble(folder: Path, text: str) -> Ensemble:
    path = folder / "bag.yaml"
    path.write_text(text)
    for name in "abcd":
        (folder / f"{name}.safetensors").touch()
    bag, files = read_bag(path)
    return bag_ensemble(bag, path, files, FOUR)


def test_the_bag_of_one_model_per_stem_uses_each_for_its_stem(tmp_path: Path) -> None:
    found = ensemble(tmp_path, f"models: [a, b, c, d]\nweights: {IDENTITY}")
    files = [tmp_path / f"{name}.safetensors" for name in "abcd"]
    assert found == Ensemble(files, weights=[1] * 4, stems=[[s] for s in FOUR], name="bag")


def test_without_weights_all_models_count_alike_for_all_stems(tmp_path: Path) -> None:
    found = ensemble(tmp_path, "models: [a, b]")
    assert (found.weights, found.stems) == (None, (FOUR, FOUR))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [a, b]\nweights: [[1, 0, 2, 0], [1, 1, 1, 1]]", "combine the models in a .json"),
        ("models: [a, b]\nweights: [[1, 1], [1, 1]]", "must be 4 numbers for each model"),
        ("models: [a, e]", "must hold one file of the model e"),
        ("models: [a]\nsegment: 44", "segment in .* must be left out; got 44"),
        ("training: {}", "the models in .* must be 1 to 16 different signatures"),
        ("models: &a [a]\nweights: *a", "must be 1 rows, one for each model"),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ensemble(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no model file '.*none\.yaml'"):
        read_bag(tmp_path / "none.yaml")
