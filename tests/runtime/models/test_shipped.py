"""The weights that are included in the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bsmamba2 import Separator
from bsmamba2.models.open_model import open_model
from bsmamba2.models.registry import ABOUT, DEFAULT, shipped
from support.models import open_engine, open_step_engine


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))


def test_the_weights_are_small_and_document_what_they_were_trained_on() -> None:
    path = shipped()[DEFAULT]
    licence = open_model(path).manifest.licence
    assert path.stat().st_size < 12e6
    assert "copyleft" in licence
    assert licence in path.with_suffix(".md").read_text()
    assert set(shipped()) == set(ABOUT)


@pytest.mark.usefixtures("empty_cache")
def test_songs_and_streams_reproduce_the_checks_that_ship_with_the_weights() -> None:
    assert open_engine(None, "cpu").manifest.check is not None
    assert open_step_engine(None, "cpu").manifest.check is not None


@pytest.mark.usefixtures("empty_cache")
def test_silence_separates_into_silence() -> None:
    vocals = Separator(device="cpu")(np.zeros((2, 44100), np.float32), 44100)["vocals"]
    assert np.abs(vocals).max() < 1e-6
