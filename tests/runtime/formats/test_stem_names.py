"""Stems are found by name or alias, and unknown names are refused with the known ones."""

from __future__ import annotations

import pytest

from bsmamba2 import ModelError
from bsmamba2.formats.stem_names import ALIASES, UnknownStem, find_stem, wanted_stems

KNOWN = ("vocals", "instrumental")


@pytest.mark.parametrize("name", ["instrumental", *ALIASES["instrumental"]])
def test_a_name_and_its_aliases_find_the_stem(name: str) -> None:
    assert find_stem(name, KNOWN) == "instrumental"


def test_a_stem_that_the_model_has_is_not_an_alias() -> None:
    assert find_stem("other", ("vocals", "other")) == "other"


@pytest.mark.parametrize("name", ["other", "accompaniment"])
def test_other_is_the_instrumental_only_where_no_stem_has_that_name(name: str) -> None:
    known = ("instrumental", "other")
    assert find_stem(name, known) == ("other" if name == "other" else "instrumental")


@pytest.mark.parametrize(("alias", "stem"), [("voice", "vocals"), ("drum", "drums")])
def test_every_stem_answers_to_common_names(alias: str, stem: str) -> None:
    assert find_stem(alias, ("drums", "vocals")) == stem


def test_an_unknown_stem_is_a_model_error_and_a_key_error() -> None:
    with pytest.raises(UnknownStem) as error:
        find_stem("drums", KNOWN)
    assert isinstance(error.value, (ModelError, KeyError))
    assert str(error.value) == "stem must be one of vocals, instrumental; got 'drums'"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, KNOWN),
        ("no_vocals", ("instrumental",)),
        (["instrumental", "vocals"], KNOWN),
        (["other", "accompaniment"], ("instrumental",)),
        ([], ()),
    ],
)
def test_requested_stems_are_returned_once_in_the_order_of_the_model(
    names: list[str] | str | None, expected: tuple[str, ...]
) -> None:
    assert wanted_stems(names, KNOWN) == expected


def test_stems_outside_the_default_are_returned_only_on_request() -> None:
    known, default = ("drums", "vocals", "instrumental"), ("drums", "vocals")
    assert wanted_stems(None, known, default) == default
    assert wanted_stems(["no_vocals"], known, default) == ("instrumental",)
