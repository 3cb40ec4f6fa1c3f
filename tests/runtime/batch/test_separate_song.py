"""A planned song becomes files; the Separator's tests cover formats, failures and records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bsmamba2.batch.plan import OutputOptions
from bsmamba2.batch.separate_song import separate_song
from bsmamba2.models.loaded_model import LoadedModel
from support.engines import Stubs
from support.files import integers
from support.fixtures import WriteSong


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_the_files_of_a_planned_song_do_not_depend_on_the_threads(
    stub: Stubs, song: WriteSong, tmp_path: Path, threads: int
) -> None:
    path, model = song("song.wav", "PCM_16"), LoadedModel(stub.half())
    plan = OutputOptions().plan(path, tmp_path / "stems", model.manifest)
    written = separate_song(model, plan, threads)
    assert list(written) == ["vocals", "instrumental"]
    np.testing.assert_array_equal(sum(map(integers, written.values())), integers(path))


def test_a_song_that_is_done_is_not_separated_again(
    stub: Stubs, song: WriteSong, tmp_path: Path
) -> None:
    engine = stub.half()
    model = LoadedModel(engine)
    plan = OutputOptions().plan(song("song.wav", "PCM_16"), tmp_path, model.manifest)
    first = separate_song(model, plan, 1, resume=True)
    runs = len(engine.lengths)
    assert separate_song(model, plan, 1, resume=True) == first
    assert len(engine.lengths) == runs
