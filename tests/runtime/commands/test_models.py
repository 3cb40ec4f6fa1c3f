"""``bsmamba2 models``: lists and downloads named models, which can then be used by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from bsmamba2 import ModelError, Separator
from bsmamba2.files.cache import cache_folder
from bsmamba2.models.registry import DEFAULT, shipped
from support.commands import run_command
from support.published import PublishedVoice
from support.server import corrupting, truncating


def test_published_models_are_listed_with_size_and_licence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))
    page = run_command("models").stdout
    assert re.search("bs_mamba2_vocals +193 MB +not stated +not fetched", page)
    assert "bsmamba2 models fetch NAME" in page
    row = json.loads(run_command("models", "--json").stdout.splitlines()[-1])
    assert (row["bytes"], row["path"], len(row["sha256"])) == (192_610_602, None, 64)


def test_shipped_models_are_listed_with_their_path() -> None:
    row = json.loads(run_command("models", "--json").stdout.splitlines()[0])
    assert (row["name"], row["path"]) == (DEFAULT, str(shipped()[DEFAULT]))
    assert re.search(f"{DEFAULT} +[0-9]+ MB .* ready", run_command("models").stdout)


def test_licence_and_size_are_shown_before_the_download(voice: PublishedVoice) -> None:
    result = voice(corrupting)
    assert result.exit_code == 2
    assert "licence of the weights: none" in result.stderr
    assert "its SHA-256 differs" in result.stderr.splitlines()[-1]


def test_a_downloaded_model_separates_by_its_name_and_has_checks(voice: PublishedVoice) -> None:
    result = voice(truncating(100_000))
    assert (result.exit_code, result.stdout) == (0, f"{voice.path}\n")
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 9000)).astype(np.float32)
    separator = Separator("voice", "cpu")
    assert np.std(separator(noise, 44100)["vocals"]) > 1e-6
    assert separator.manifest.check is not None
    for verdicts in (1, 2, 2):  # one for chunks, and one for streams from the first stream on
        assert len(list((cache_folder() / "verdicts").iterdir())) == verdicts
        separator.stream(44100, lookahead_ms=100)
    assert '"path": null' not in run_command("models", "--json").stdout


def test_a_second_download_keeps_a_correct_file_and_replaces_a_wrong_one(
    voice: PublishedVoice,
) -> None:
    voice()
    before = voice.path.stat().st_mtime_ns
    assert voice().exit_code == 0
    assert voice.path.stat().st_mtime_ns == before
    voice.path.write_bytes(voice.content[:-4] + b"\0\0\1\0")
    with pytest.raises(ModelError, match="run bsmamba2 models fetch voice, which downloads it ag"):
        Separator("voice", "cpu")
    assert voice().exit_code == 0
    assert voice.path.read_bytes() == voice.content


def test_a_shipped_model_needs_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    result = run_command("models", "fetch", DEFAULT)
    assert (result.exit_code, result.stdout) == (0, f"{shipped()[DEFAULT]}\n")
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("voice")
@pytest.mark.parametrize(
    ("name", "hint"), [("voise", "did you mean voice"), ("x", "choose from voice")]
)
def test_an_unknown_name_is_an_error_with_the_known_ones(name: str, hint: str) -> None:
    result = run_command("models", "fetch", name)
    assert (result.exit_code, hint in result.stderr) == (2, True)
