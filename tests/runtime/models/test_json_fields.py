"""Values of untrusted JSON: right ones are returned, and an error names the path of a wrong one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from bsmamba2 import ModelError
from bsmamba2.models.json_fields import Field


def test_a_value_is_found_by_its_path() -> None:
    document = Field({"models": [{"name": "x"}, {"name": 5}]})
    models = document.members(["models"])["models"].items(1, 2)
    assert models[0].members(["name"])["name"].text(3) == "x"
    with pytest.raises(ModelError) as caught:
        models[1].members(["name"])["name"].text(3)
    assert str(caught.value) == "models[1].name must be one printable line; got 5"


@pytest.mark.parametrize(
    ("read", "value", "allowed"),
    [
        (lambda field: field.integer(1, 9), 10, "an integer in 1-9"),
        (lambda field: field.integer(1, 9), True, "an integer in 1-9"),
        (lambda field: field.integer(1, 9), 5.0, "an integer in 1-9"),
        (lambda field: field.integer(1, 1), 2, "1"),
        (lambda field: field.number(0, 1), float("nan"), "a number in 0 to 1"),
        (lambda field: field.number(0, 1), "0.5", "a number in 0 to 1"),
        (lambda field: field.boolean(), 1, "true or false"),
        (lambda field: field.choice(("a", "b")), [], "one of a, b"),
        (lambda field: field.match(re.compile("a+"), "letters a"), "ab", "letters a"),
        (lambda field: field.text(3), "", "1 to 3 characters"),
        (lambda field: field.text(3), " a", "1 to 3 characters"),
        (lambda field: field.text(3), "a\nb", "one printable line"),
        (lambda field: field.items(1, 2), [], "a list of 1 to 2 elements"),
        (lambda field: field.items(1, 2), {}, "a list of 1 to 2 elements"),
        (lambda field: field.mapping(1), {"a": 1, "b": 2}, "an object of at most 1 fields"),
    ],
)
def test_a_wrong_value_is_an_error_with_what_is_allowed(
    read: Callable[[Field], Any], value: Any, allowed: str
) -> None:
    with pytest.raises(ModelError, match=f"^x.y must be {re.escape(allowed)}.*; got "):
        read(Field(value, "x.y"))


def test_right_values_are_returned() -> None:
    assert Field(9).integer(1, 9) == 9
    assert Field(1).number(0, 1) == 1.0
    assert Field(False).boolean() is False
    assert Field("b").choice(("a", "b")) == "b"


def test_unknown_and_missing_fields_are_errors() -> None:
    with pytest.raises(ModelError, match="files.0.: the fields must be among url; got 'ulr'"):
        Field({"ulr": 1}, "files[0]").members(["url"])
    with pytest.raises(ModelError, match="files.0..url must be given"):
        Field({}, "files[0]").members(["url"])


def test_a_huge_value_is_quoted_in_short() -> None:
    value: Any = []
    for _ in range(100):
        value = [value, "x" * 1000]
    with pytest.raises(ModelError) as caught:
        Field(value, "x").text(5)
    assert len(str(caught.value)) < 300


def test_control_characters_are_not_printed() -> None:
    with pytest.raises(ModelError) as caught:
        Field({"\x1b[31m": 1}).members()
    assert str(caught.value).isprintable()
