"""``bsmamba2 info``: describes a model, and runs its checks on request."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from bsmamba2.formats.manifest import Manifest
from bsmamba2.models.check import make_check
from bsmamba2.models.open_model import open_model
from bsmamba2.models.registry import DEFAULT
from support.commands import run_command, run_python
from support.engines import Stubs
from support.fixtures import WriteOnnx
from support.models import MANIFEST, gain_model, random_weights, write_checkpoint
from support.published import PublishedVoice


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))


def test_a_model_is_described_in_lines(write_onnx: WriteOnnx) -> None:
    lines = run_command("info", write_onnx(gain_model())).stdout.splitlines()
    assert lines[:5] == [
        "name        gain",
        "network     BSMamba2",
        "stems       vocals, instrumental",
        "audio       44100 Hz, 2 channels",
        "spectrum    n_fft 16, hop 4",
    ]


def test_where_a_checkpoints_settings_come_from_is_stated(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(random_weights(), path)
    yaml = tmp_path / "x.yaml"
    yaml.write_text("audio: {chunk_size: 88200, sample_rate: 44100}")
    lines = run_command("info", path, "--config", yaml).stdout.splitlines()
    assert lines[-2:] == [
        "yaml        sample_rate 44100; chunk 2 s",
        "assumed     stems vocals; hop 512",
    ]


def test_json_is_the_whole_manifest(write_onnx: WriteOnnx) -> None:
    result = run_command("info", write_onnx(gain_model()), "--json")
    assert Manifest.from_json(result.stdout) == MANIFEST


def write_combination(folder: Path) -> Path:
    """Writes a chain of two exported models, each with a check."""
    for name, gain in (("first", 0.5), ("second", 0.25)):
        check = make_check(Stubs().scaled(gain))
        content = gain_model(MANIFEST.replace(name=name, check=check), gain=gain)
        (folder / f"{name}.onnx").write_bytes(content)
    path = folder / "karaoke.json"
    path.write_text('{"chain": ["first.onnx", "second.onnx"]}')
    return path


def test_a_combination_is_described_with_each_of_its_models(tmp_path: Path) -> None:
    lines = run_command("info", write_combination(tmp_path)).stdout.splitlines()
    assert lines[:3] == [
        "name        karaoke",
        "stems       vocals, vocals_instrumental, instrumental",
        "chain       first, then second on the stem vocals",
    ]
    assert {"  name        first", "  name        second"} <= set(lines)


def test_the_checks_of_all_models_of_a_combination_are_run(tmp_path: Path) -> None:
    path = write_combination(tmp_path)
    result = run_command("info", path, "--check", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("reproduced on cpu") == 2
    assert [member["name"] for member in json.loads(result.stdout)["members"]] == [
        "first",
        "second",
    ]


def test_a_weighted_ensemble_is_described_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(gain_model())
    content = {"ensemble": ["a.onnx"] * 2, "weights": [2, 1.5], "stems": [["vocals"]] * 2}
    (tmp_path / "both.json").write_text(json.dumps(content))
    page = run_command("info", tmp_path / "both.json").stdout
    assert "ensemble    average of gain × 2 (vocals), gain × 1.5 (vocals)" in page


def test_a_name_is_described_like_a_file(voice: PublishedVoice) -> None:
    voice()
    assert "checkpoint  SHA-256" in run_command("info", "voice").stdout
    assert f"name        {DEFAULT}" in run_command("info").stdout


def test_the_check_of_an_export_is_run(write_onnx: WriteOnnx, stub: Stubs) -> None:
    path = write_onnx(gain_model(MANIFEST.replace(check=make_check(stub.half()))))
    result = run_command("info", path, "--check", "--device", "cpu")
    assert re.search(r"check       reproduced on cpu with .* dB, whole chunks$", result.stdout)
    as_json = run_command("info", path, "--check", "--device", "cpu", "--json")
    assert "reproduced on cpu" in as_json.stderr
    assert json.loads(as_json.stdout)["name"] == "gain"


def test_a_check_that_fails_gives_status_2(write_onnx: WriteOnnx, stub: Stubs) -> None:
    path = write_onnx(gain_model(MANIFEST.replace(check=make_check(stub.identity()))))
    result = run_command("info", path, "--check", "--device", "cpu")
    assert (result.exit_code, "does not reproduce its check" in result.stderr) == (2, True)


def test_checks_are_computed_for_a_checkpoint_that_has_none(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "mine.safetensors")
    result = run_command("info", path, "--check", "--device", "cpu")
    for form in ("whole chunks", "a stream"):
        assert re.search(f"check       reproduced on cpu with .* dB, {form}", result.stdout)
        assert result.stderr.count(f"computing the check for {form}") == 1
    assert open_model(path).manifest.check is not None


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_checkpoint_is_opened_once_even_for_its_checks(tmp_path: Path, suffix: str) -> None:
    """Counts what Python opens; libraries in other languages are not counted."""
    path = tmp_path / f"voice.{suffix}"
    if suffix == "safetensors":
        write_checkpoint(path)
    else:
        torch = pytest.importorskip("torch")
        torch.save({name: torch.tensor(v) for name, v in random_weights().items()}, path)
    result = run_python("-c", COUNT_OPENS, str(path))
    assert "check       reproduced on cpu" in result.stdout, result.stderr
    assert result.stderr.splitlines()[-1] == "opened 1 times"


COUNT_OPENS = """
import os
import sys

path, opened = sys.argv[1], []

def count(event, arguments):
    if event == "open" and not isinstance(arguments[0], int):
        if os.fsdecode(arguments[0]) == path:
            opened.append(arguments)

sys.addaudithook(count)
from bsmamba2 import cli
try:
    cli.main(["info", path, "--check", "--device", "cpu"])
finally:
    print(f"opened {len(opened)} times", file=sys.stderr)
"""


def test_a_check_that_cannot_be_stored_is_an_error_with_a_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "file"))
    path = write_checkpoint(tmp_path / "mine.safetensors")
    result = run_command("info", path, "--check", "--device", "cpu")
    assert (result.exit_code, "set BSMAMBA2_CACHE to a writable folder" in result.stderr) == (
        2,
        True,
    )


def test_weights_whose_output_is_not_finite_are_an_error(tmp_path: Path) -> None:
    weights = random_weights()
    weights["final_norm.gamma"] *= np.nan
    path = write_checkpoint(tmp_path / "broken.safetensors", weights)
    result = run_command("info", path, "--check", "--device", "cpu")
    assert result.exit_code == 2
    assert "the output of broken is not finite" in result.stderr
