"""The command line of training: what a user types, and what a user did wrong."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bsmamba2_training.commands import train

SMALL = {
    "steps": 2,
    "batch": 1,
    "segment": 0.1,
    "loss-hop": 512,
    "valid-every": 2,
    "device": "cpu",
}


def invoke(*arguments, **options):
    named = [text for name, value in options.items() for text in (f"--{name}", value)]
    return CliRunner().invoke(train, [str(text) for text in (*arguments, *named)])


@pytest.fixture
def micro_choice(monkeypatch):
    """Lets ``--preset micro`` through, which exists in these tests alone."""
    option = next(item for item in train.params if item.name == "preset")
    monkeypatch.setattr(option.type, "choices", [*option.type.choices, "micro"])


def test_a_run_is_trained_and_leaves_its_model_and_curve(pooled, tmp_path, micro_choice):
    run = invoke(pooled, "-o", tmp_path / "run", "--preset", "micro", **SMALL)
    assert run.exit_code == 0, run.output
    assert "done after step 2" in run.output
    for name in ("model.safetensors", "curve.csv", "curve.png", "state.pt", "plan.json"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert "done after step 2" in invoke(pooled, "-o", tmp_path / "run").output


def test_options_without_a_preset_belong_to_no_run(pooled, tmp_path):
    run = invoke(pooled, "-o", tmp_path / "run", "--steps", 5)
    assert run.exit_code == 2
    assert "--steps belong to a new run" in run.output


def test_a_device_that_is_not_one_is_named(pooled, tmp_path):
    run = invoke(pooled, "-o", tmp_path / "run", "--preset", "tiny", "--device", "toaster")
    assert "got 'toaster'" in str(run.exception)
