"""Weights that are shipped in the wheel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bsmamba2.errors import ModelError
from bsmamba2.formats.checkpoint import read_checkpoint
from bsmamba2.models.open_model import open_model
from bsmamba2_network import BSMamba2, Config
from bsmamba2_training.ship import ship
from bsmamba2_training.sources import SCRATCH, STEMPEG

SOURCES = """# Sources of this audio

| package | used as | licence | by |
|---|---|---|---|
| a-choir | train, voice | CC-BY-SA-4.0 | Ada and Bo |

## a-choir

| a table in its licence text |
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run of the preset tiny, with the only file that shipping reads."""
    BSMamba2.untrained("tiny").save(tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """SOURCES.md of a data set."""
    path = tmp_path / "SOURCES.md"
    path.write_text(SOURCES)
    return path


def test_shipped_weights_have_half_the_size_and_a_licence(run: Path, sources: Path) -> None:
    snr = ship([run], run / "weights", "first", "to be tested", sources)
    shipped = run / "weights" / "first.safetensors"
    assert snr > 40
    assert shipped.stat().st_size < 0.52 * (run / "model.safetensors").stat().st_size
    manifest = open_model(shipped).manifest
    assert manifest.licence == "to be tested"
    assert manifest.chunk == BSMamba2.untrained("tiny").config.chunk
    assert set(read_checkpoint(shipped).tensors) == set(manifest.initialisers)


def test_the_mean_of_several_runs_is_shipped(run: Path, sources: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    net = BSMamba2.load(run / "model.safetensors")
    net.load_state_dict({name: 3 * value for name, value in net.state_dict().items()})
    net.save(other / "model.safetensors")
    ship([run, other], run / "weights", "both", "to be tested", sources)
    first, both = (
        read_checkpoint(path).tensors["band_split.to_features.0.1.weight"]
        for path in (run / "model.safetensors", run / "weights/both.safetensors")
    )
    np.testing.assert_allclose(both, 2 * first, rtol=1e-3)


def test_shipped_weights_have_their_checks(
    run: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship([run], run / "weights", "first", "to be tested", sources)
    monkeypatch.setattr("bsmamba2.models.verdict.SHIPPED", run / "weights/checks")
    monkeypatch.setenv("BSMAMBA2_CACHE", str(run / "empty"))
    assert open_model(run / "weights" / "first.safetensors").manifest.check is not None
    assert len(list((run / "weights/checks").iterdir())) == 2


def test_the_page_of_the_weights_has_the_terms_and_only_the_table_of_sources(
    run: Path, sources: Path
) -> None:
    ship([run], run / "weights", "first", "to be tested", sources)
    page = (run / "weights" / "first.md").read_text(encoding="utf-8")
    assert "`LicenseRef-bsmamba2-weights`: to be tested" in page
    assert "MIT licence" in page
    assert "legally unsettled" in page
    assert all(f"{source.name} {source.version}" in page for source in (STEMPEG, SCRATCH))
    assert [line for line in page.splitlines() if line.startswith("|")] == SOURCES.splitlines()[2:5]


@pytest.mark.parametrize("text", ["", "# Nothing", "| package |\n|---|\n"])
def test_weights_without_a_list_of_sources_are_not_shipped(
    run: Path, sources: Path, text: str
) -> None:
    sources.write_text(text)
    with pytest.raises(ModelError, match="sources must start with a table"):
        ship([run], run / "weights", "first", "to be tested", sources)
    assert not (run / "weights").exists()


def test_a_size_without_a_graph_is_not_shipped(run: Path, sources: Path, micro: Config) -> None:
    BSMamba2(micro).save(run / "model.safetensors")
    with pytest.raises(ModelError, match="without a shipped graph"):
        ship([run], run / "weights", "first", "to be tested", sources)
