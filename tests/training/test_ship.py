"""Weights on their way into the wheel."""

from __future__ import annotations

import pytest

from bsmamba2.checkpoint import read_checkpoint
from bsmamba2.errors import ModelError
from bsmamba2.models import describe
from bsmamba2_network import BSMamba2
from bsmamba2_training.ship import ship
from bsmamba2_training.sources import PACKAGES


@pytest.fixture
def run(tmp_path):
    """A run of the preset tiny, as far as shipping looks at it."""
    BSMamba2.untrained("tiny").save(tmp_path / "model.safetensors")
    return tmp_path


def test_shipped_weights_are_half_as_large_and_run_with_a_licence(run):
    snr = ship(run, run / "weights", "first", "to be tested")
    shipped = run / "weights" / "first.safetensors"
    assert snr > 40
    assert shipped.stat().st_size < 0.52 * (run / "model.safetensors").stat().st_size
    manifest = describe(shipped)
    assert manifest.licence == "to be tested"
    assert manifest.chunk == BSMamba2.untrained("tiny").config.chunk
    assert set(read_checkpoint(shipped).tensors) == set(manifest.initialisers)


def test_shipped_weights_come_with_their_checks(run, monkeypatch):
    ship(run, run / "weights", "first", "to be tested")
    monkeypatch.setattr("bsmamba2.verdict.SHIPPED", run / "weights/checks")
    monkeypatch.setenv("BSMAMBA2_CACHE", str(run / "empty"))
    assert describe(run / "weights" / "first.safetensors").check is not None
    assert len(list((run / "weights/checks").iterdir())) == 2


def test_every_source_is_named_beside_the_weights(run):
    ship(run, run / "weights", "first", "to be tested")
    page = (run / "weights" / "first.md").read_text()
    assert all(package.name in page and package.licence in page for package in PACKAGES)


def test_a_size_without_a_graph_is_not_shipped(run, micro):
    BSMamba2(micro).save(run / "model.safetensors")
    with pytest.raises(ModelError, match="no ready graph"):
        ship(run, run / "weights", "first", "to be tested")
