"""``bsmamba2 triton``."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bsmamba2 import ModelError
from bsmamba2.errors import for_command_line
from bsmamba2_cluster.triton.command import triton


def test_the_folders_of_the_models_are_printed(checkpoint: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(triton, [str(checkpoint), "-o", str(tmp_path / "models")])
    names = ("tiny", "tiny_streaming")
    assert result.stdout.splitlines() == [f"wrote {tmp_path / 'models' / name}" for name in names]


def test_name_and_batch_reach_the_configuration(gain: Path, tmp_path: Path) -> None:
    options = ["-o", str(tmp_path), "--name", "half", "--batch", "16"]
    assert CliRunner().invoke(triton, [str(gain), *options]).exit_code == 0
    text = (tmp_path / "half" / "config.pbtxt").read_text()
    assert 'name: "half"' in text
    assert "max_batch_size: 16" in text


def test_an_argument_is_named_as_on_the_command_line(gain: Path, tmp_path: Path) -> None:
    options = ["-o", str(tmp_path), "--kernel-at", "models"]
    result = CliRunner().invoke(triton, [str(gain), *options])
    assert isinstance(result.exception, ModelError)
    assert for_command_line(str(result.exception)).startswith("--kernel-at must be the absolute")


@pytest.mark.parametrize("missing", ["-o", "MODEL"])
def test_both_arguments_are_required(missing: str, gain: Path, tmp_path: Path) -> None:
    arguments = [str(gain)] if missing == "-o" else ["-o", str(tmp_path)]
    assert CliRunner().invoke(triton, arguments).exit_code == 2
