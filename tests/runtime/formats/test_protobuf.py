"""Fields of a protocol buffer are found without copying them, and damage is an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import ModelError
from bsmamba2.formats.protobuf import MappedFile, fields, text


@contextmanager
def mapped(content: bytes) -> Iterator[MappedFile]:
    with MappedFile(-1, len(content)) as data:
        data.write(content)
        yield data


def test_fields_of_bytes_are_found_and_others_are_skipped() -> None:
    content = b"\x08\x96\x01" + b"\x12\x02la" + b"\x1d\0\0\0\0" + b"\x21" + bytes(8) + b"\x2a\0"
    with mapped(content) as data:
        found = list(fields(data, range(len(content))))
        assert text(data, found[0][1]) == "la"
    assert [(number, len(place)) for number, place in found] == [(2, 2), (5, 0)]


@pytest.mark.parametrize("content", [b"\x12\x09la", b"\x0b", b"\x12", b"\xff" * 20])
def test_damage_is_an_error(content: bytes) -> None:
    with mapped(content) as data, pytest.raises(ModelError):
        list(fields(data, range(len(content))))


def test_text_must_be_utf_8() -> None:
    with mapped(b"\xff") as data, pytest.raises(ModelError):
        text(data, range(1))


@given(st.binary(min_size=1, max_size=99))
def test_no_field_reaches_past_its_message(content: bytes) -> None:
    with mapped(content) as data:
        try:
            for _, place in fields(data, range(len(content))):
                assert 0 <= place.start <= place.stop <= len(content)
        except ModelError:
            pass
