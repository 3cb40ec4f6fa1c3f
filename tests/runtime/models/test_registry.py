"""Models by name: listed, fetched from a server on loopback, and run without torch."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from bsmamba2 import ModelError, Separator, cli
from bsmamba2.files.cache import cache_folder
from bsmamba2.models import registry
from bsmamba2.models.open_model import open_model
from bsmamba2.models.registry import PUBLISHED, Published
from support.models import random_weights
from support.server import Server, corrupting, truncating


@pytest.fixture(scope="module")
def content():
    return safetensors.numpy.save(random_weights("tiny"))


@pytest.fixture
def published(content, tmp_path, monkeypatch):
    """``published(mood, ...)``: runs ``models fetch voice`` against a server of those moods."""
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("bsmamba2.models.download.PAUSE", 0.0)
    voice = Published("voice", "", len(content), hashlib.sha256(content).hexdigest(), "none", "")

    def fetch(*moods):
        with Server(content, moods) as server:
            fetch.model = Published(**(vars(voice) | {"url": server.url}))
            monkeypatch.setattr(registry, "PUBLISHED", (fetch.model,))
            return run("models", "fetch", "voice")

    return fetch


def run(*args):
    return CliRunner().invoke(cli.main, [str(arg) for arg in args])


def test_the_published_checkpoint_is_listed_with_its_size_and_licence(monkeypatch, tmp_path):
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))
    page = run("models").stdout
    assert re.search("bs_mamba2_vocals +193 MB +not stated +not fetched", page)
    assert "bsmamba2 models fetch NAME" in page
    row = json.loads(run("models", "--json").stdout.splitlines()[-1])
    assert (row["bytes"], row["path"], len(row["sha256"])) == (192_610_602, None, 64)


def test_what_is_published_comes_safely():
    for model in PUBLISHED:
        assert model.url.startswith("https://")
        assert model.path.stem == model.name


def test_a_model_is_fetched_only_when_asked_and_told_how(monkeypatch, tmp_path):
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))
    line = r"run bsmamba2 models fetch bs_mamba2_vocals \(193 MB, licence of the weights not stated"
    with pytest.raises(ModelError, match=line):
        Separator("bs_mamba2_vocals", "cpu")
    assert list(tmp_path.iterdir()) == []


def test_licence_and_size_are_shown_before_the_download(published):
    result = published(corrupting)
    assert result.exit_code == 2
    assert "licence of the weights: none" in result.stderr
    assert "its SHA-256 differs" in result.stderr.splitlines()[-1]


def test_a_fetched_model_separates_by_its_name_and_has_a_check(published):
    result = published(truncating(100_000))
    assert (result.exit_code, result.stdout) == (0, f"{published.model.path}\n")
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 9000)).astype(np.float32)
    separator = Separator("voice", "cpu")
    assert np.std(separator(noise, 44100)["vocals"]) > 1e-6
    assert separator.manifest.check is not None
    for verdicts in (1, 2, 2):
        assert len(list((cache_folder() / "verdicts").iterdir())) == verdicts
        separator.stream(44100, lookahead_ms=100)
    assert '"path": null' not in run("models", "--json").stdout


def test_a_check_goes_with_the_checkpoint_wherever_it_lies(published, content, tmp_path):
    published()
    (tmp_path / "copy.safetensors").write_bytes(content)
    assert open_model(tmp_path / "copy.safetensors").manifest.check is not None


def test_fetching_again_keeps_what_is_right_and_mends_what_is_not(published, content):
    published()
    path = published.model.path
    before = path.stat().st_mtime_ns
    assert published().exit_code == 0
    assert path.stat().st_mtime_ns == before
    path.write_bytes(content[:-4] + b"\0\0\1\0")
    with pytest.raises(ModelError, match="run bsmamba2 models fetch voice, which gets it again"):
        Separator("voice", "cpu")
    assert published().exit_code == 0
    assert path.read_bytes() == content


def test_info_takes_a_name_too(published):
    published()
    assert "checkpoint  SHA-256" in run("info", "voice").stdout


def test_info_makes_the_check_of_a_checkpoint_that_was_not_fetched(content, tmp_path, monkeypatch):
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.safetensors").write_bytes(content)
    result = run("info", tmp_path / "mine.safetensors", "--check", "--device", "cpu")
    for form in ("whole chunks", "a stream"):
        assert re.search(f"check       reproduced on cpu with .* dB, {form}", result.stdout)
        assert result.stderr.count(f"making the check of {form}") == 1
    assert open_model(tmp_path / "mine.safetensors").manifest.check is not None


def test_a_check_that_cannot_be_kept_is_told(content, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "file"))
    (tmp_path / "mine.safetensors").write_bytes(content)
    result = run("info", tmp_path / "mine.safetensors", "--check", "--device", "cpu")
    assert (result.exit_code, "set BSMAMBA2_CACHE to a folder" in result.stderr) == (2, True)


def test_weights_that_make_no_finite_sound_get_no_check(tmp_path, monkeypatch):
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    weights = random_weights("tiny")
    weights["final_norm.gamma"] *= np.nan
    path = tmp_path / "broken.safetensors"
    safetensors.numpy.save_file(weights, path)
    result = run("info", path, "--check", "--device", "cpu")
    assert (result.exit_code, "broken makes sound that is not finite" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", ["none.engine", "none.onnx", "x" * 300 + ".ckpt"])
def test_a_model_file_that_is_not_there_is_told_so(name):
    with pytest.raises(ModelError, match="there is no model file .*: check its name and folder"):
        Separator(name)


@pytest.mark.parametrize(
    ("name", "hint"), [("voise", "did you mean voice"), ("x", "there is voice")]
)
def test_an_unknown_name_is_told_the_known(published, name, hint):
    published()
    assert hint in run("models", "fetch", name).stderr
