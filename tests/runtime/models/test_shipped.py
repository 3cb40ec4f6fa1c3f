"""The weights that come with the package."""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2 import Separator
from bsmamba2.models.open_model import open_model
from bsmamba2.models.registry import ABOUT, DEFAULT, shipped
from support.models import open_engine, open_step_engine


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Where nothing was run before."""
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))


def test_they_are_small_have_a_page_of_their_own_and_say_what_they_learnt_from():
    path = shipped()[DEFAULT]
    assert path.stat().st_size < 12e6
    assert "copyleft" in open_model(path).manifest.licence
    assert open_model(path).manifest.licence in path.with_suffix(".md").read_text()
    assert set(shipped()) == set(ABOUT)


def test_they_come_with_checks_which_whole_songs_and_streams_reproduce(fresh):
    pytest.importorskip("onnxruntime")
    assert open_engine(None, "cpu").manifest.check is not None
    assert open_step_engine(None, "cpu").manifest.check is not None


def test_silence_in_is_silence_out(fresh):
    pytest.importorskip("onnxruntime")
    vocals = Separator(device="cpu")(np.zeros((2, 44100), np.float32), 44100)["vocals"]
    assert np.abs(vocals).max() < 1e-6
