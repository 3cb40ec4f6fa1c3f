"""``bsmamba2 train``: runs from the command line, and errors for wrong options."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from bsmamba2_training.commands import train

SMALL = {
    "steps": 2,
    "batch": 1,
    "segment": 0.1,
    "loss-hop": 512,
    "valid-every": 2,
    "device": "cpu",
}


def invoke(*arguments: object, **options: object) -> Result:
    named = [text for name, value in options.items() for text in (f"--{name}", value)]
    return CliRunner().invoke(train, [str(text) for text in (*arguments, *named)])


@pytest.fixture
def micro_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``--preset micro``, which exists only in these tests, a valid choice."""
    option = next(item for item in train.params if item.name == "preset")
    assert isinstance(option.type, click.Choice)
    monkeypatch.setattr(option.type, "choices", [*option.type.choices, "micro"])


@pytest.mark.usefixtures("micro_choice")
def test_a_run_is_trained_and_writes_its_model_and_curve(pooled: Path, tmp_path: Path) -> None:
    run = invoke(pooled, "-o", tmp_path / "run", "--preset", "micro", **SMALL)
    assert run.exit_code == 0, run.output
    assert "done after step 2" in run.output
    for name in ("model.safetensors", "curve.csv", "curve.png", "state.pt", "plan.json"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert "done after step 2" in invoke(pooled, "-o", tmp_path / "run").output


@pytest.mark.parametrize("option", ["--steps", "--segment"])
def test_options_of_a_plan_without_a_preset_are_refused(
    pooled: Path, tmp_path: Path, option: str
) -> None:
    run = invoke(pooled, "-o", tmp_path / "run", option, 5)
    assert run.exit_code == 2
    assert f"only a new run accepts {option}" in run.output


def test_an_unknown_device_is_refused_by_name(pooled: Path, tmp_path: Path) -> None:
    run = invoke(pooled, "-o", tmp_path / "run", "--preset", "tiny", "--device", "toaster")
    assert "got 'toaster'" in str(run.exception)
