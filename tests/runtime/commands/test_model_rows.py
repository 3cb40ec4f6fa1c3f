"""The list of models: shipped and published ones in one form, and what a filter leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from bsmamba2 import ModelError
from bsmamba2.commands.model_rows import (
    ModelFilter,
    ModelRow,
    describe_figures,
    listed_models,
    megabytes,
)
from bsmamba2.models.catalogue import Figures
from bsmamba2.models.registry import DEFAULT, PUBLISHED
from support.published import make_published


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def rows() -> list[ModelRow]:
    return listed_models()


def chosen(rows: list[ModelRow], **wanted: str) -> list[str]:
    return [row.name for row in ModelFilter(**wanted).choose(rows)]


def test_shipped_models_come_first_and_then_those_of_the_catalogue(rows: list[ModelRow]) -> None:
    assert [row.name for row in rows] == [DEFAULT, *(model.name for model in PUBLISHED)]


def test_without_a_filter_all_are_chosen(rows: list[ModelRow]) -> None:
    assert ModelFilter().choose(rows) == rows


def test_models_are_chosen_by_stem_and_by_its_aliases(rows: list[ModelRow]) -> None:
    assert chosen(rows, stem="piano") == chosen(rows, stem="Keys") == ["htdemucs_6s", SW]
    assert {"htdemucs_6s", "bs_roformer_musdb", "scnet_xl"} <= set(chosen(rows, stem="drums"))
    assert set(chosen(rows, stem="vocals")) == set(chosen(rows, stem="instrumental"))


SW = "bs_roformer_sw"


@pytest.mark.parametrize("purpose", ["four stems", "four-stems", "Four_Stems"])
def test_a_purpose_may_be_written_with_spaces_hyphens_or_underlines(
    rows: list[ModelRow], purpose: str
) -> None:
    assert "htdemucs_ft" in chosen(rows, purpose=purpose)


def test_filters_combine(rows: list[ModelRow]) -> None:
    found = chosen(rows, purpose="four stems", licence="mit", family="scnet")
    assert found == ["scnet_small", "scnet_large_starrytong"]
    assert chosen(rows, purpose="karaoke", family="htdemucs") == []


@pytest.mark.parametrize("name", ["purpose", "licence", "stem"])
def test_a_value_that_no_model_has_is_an_error_with_those_there_are(
    rows: list[ModelRow], name: str
) -> None:
    known = {"purpose": "karaoke", "licence": "GPL-3.0", "stem": "piano"}[name]
    with pytest.raises(ModelError, match=f"^{name} must be one of .*{known}.*; got 'xyz'"):
        chosen(rows, **{name: "xyz"})


def test_the_figure_is_the_average_or_that_of_the_wanted_stem(rows: list[ModelRow]) -> None:
    by_name = {row.name: row for row in rows}
    assert by_name["htdemucs"].figure() == (9.16, "Multisong")
    assert by_name["htdemucs"].figure("drums") == (10.88, "Multisong")
    assert by_name["htdemucs_ft"].figure() is None
    assert by_name["htdemucs_ft"].figure("drum") == (11.13, "Multisong")
    assert by_name["bs_roformer_ep_317"].figure("piano") is None


def test_figures_are_described_with_their_test_set_and_source() -> None:
    figures = Figures("Multisong", "MSST", {"vocals": 8.8, "other": 7})
    expected = "SDR vocals 8.80, other 7.00 dB (test set: Multisong; measured by MSST)"
    assert describe_figures(figures) == expected


def test_sizes_are_in_megabytes() -> None:
    assert (megabytes(1_479_749_810), megabytes(None)) == ("1480", "?")


def test_json_has_every_file_and_its_source() -> None:
    row = ModelRow("x", "scnet", "vocals", ("vocals",), "MIT", 5, (), published=make_published())
    (file,) = row.to_json()["files"]
    assert file == {
        "stems": ["vocals"],
        "url": "https://example.org/x.ckpt",
        "bytes": 5,
        "sha256": "a" * 64,
        "pinned": False,
        "path": None,
    }
