"""Templates name stems within the output folder, for any names of songs and models."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError
from bsmamba2.files.naming import DEFAULT_TEMPLATE, Template


@pytest.mark.parametrize(
    ("template", "base"),
    [
        (DEFAULT_TEMPLATE, "song_vocals"),
        ("{name}/{stem}.{ext}", "song/vocals"),
        ("{model}/{stem} of {name}.{ext}", "a_b/vocals of song"),
        ("{stem}.{ext}", "vocals"),
    ],
)
def test_fields_are_filled_in(template: str, base: str) -> None:
    assert Template(template).base("song", "vocals", "a/b") == base


@pytest.mark.parametrize(
    "template",
    [
        "", ".{ext}", "{name}", "{name}.flac", "{name}.{ext}.{ext}", "{artist}.{ext}", "{}.{ext}",
        "{name!r}.{ext}", "{name:>9}.{ext}", "{name.__class__}.{ext}", "{.{ext}", "{name.{ext}",
        "../{stem}.{ext}", "/{stem}.{ext}", "a\\{name}.{ext}",
    ],
)  # fmt: skip
def test_a_template_that_is_not_a_path_below_the_folder_is_refused(template: str) -> None:
    with pytest.raises(AudioError, match="template must be a path below") as error:
        Template(template)
    assert f"got {template!r}: " in str(error.value)


@given(st.text(min_size=1))
def test_a_model_s_name_cannot_leave_the_folder(model: str) -> None:
    path = PurePosixPath("out", Template("{model}/{stem}.{ext}").base("song", "vocals", model))
    assert len(path.parts) == 3
    assert ".." not in path.parts


def test_several_stems_need_a_template_with_their_name() -> None:
    Template("{name}.{ext}").require_stems(1)
    with pytest.raises(AudioError, match=r"template must have \{stem\} to write 2 stems; got "):
        Template("{name}.{ext}").require_stems(2)
