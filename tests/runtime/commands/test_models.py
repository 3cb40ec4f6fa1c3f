"""``bsmamba2 models``: lists and downloads named models, which can then be used by name."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from bsmamba2 import ModelError, Separator
from bsmamba2.files.cache import cache_folder
from bsmamba2.models import registry
from bsmamba2.models.catalogue import Figures, PublishedFile, Source
from bsmamba2.models.registry import DEFAULT, PUBLISHED, find_members, shipped
from support.commands import run_command
from support.models import random_weights
from support.published import PublishedVoice, make_published
from support.server import Server, corrupting, truncating


def test_published_models_are_listed_with_size_and_licence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))
    page = run_command("models").stdout
    assert re.search(r"bs_mamba2_vocals +vocals +193 not stated +to fetch +8.82 \[1\]", page)
    assert "[1] Multisong" in page
    assert "bsmamba2 models fetch NAME" in page
    row = json.loads(run_command("models", "--json").stdout.splitlines()[1])
    assert (row["bytes"], row["path"], row["paths"]) == (192_610_602, None, [])
    assert len(row["files"][0]["sha256"]) == 64


def test_the_table_fits_80_columns_and_has_a_line_for_each_model() -> None:
    lines = run_command("models").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("name ")
    names = [*shipped(), *(model.name for model in PUBLISHED)]
    assert [line.split()[0] for line in lines[1 : len(names) + 1]] == names


def test_the_list_is_filtered() -> None:
    page = run_command("models", "--stem", "piano", "--family", "htdemucs").stdout
    assert [line.split()[0] for line in page.splitlines()[:2]] == ["name", "htdemucs_6s"]
    rows = run_command("models", "--licence", "gpl-3.0", "--purpose", "dereverb", "--json").stdout
    assert {json.loads(row)["licence"] for row in rows.splitlines()} == {"GPL-3.0"}


def test_a_filter_that_leaves_nothing_or_is_unknown_is_reported() -> None:
    nothing = run_command("models", "--purpose", "karaoke", "--family", "scnet")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "no model is all of that" in nothing.stderr
    unknown = run_command("models", "--stem", "kazoo")
    assert (unknown.exit_code, "stem must be one of aspiration" in unknown.stderr) == (2, True)


@pytest.fixture
def own_catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "own.json"
    model = {
        "name": "own",
        "family": "scnet",
        "purpose": "four stems",
        "stems": ["drums"],
        "licence": "ours",
        "files": [{"url": "https://example.org/own.ckpt"}],
    }
    path.write_text(json.dumps({"format": 1, "models": [model]}))
    return path


def test_a_catalogue_of_ones_own_extends_the_list(own_catalogue: Path) -> None:
    page = run_command("models", "--catalogue", own_catalogue, "--licence", "OURS").stdout
    assert re.search(r"own +four stems +\? ours +to fetch", page)
    assert run_command("models", "--licence", "ours").exit_code == 2


@pytest.mark.parametrize("command", ["models", "separate", "info"])
def test_a_wrong_catalogue_is_reported_with_its_place(own_catalogue: Path, command: str) -> None:
    own_catalogue.write_text('{"format": 1, "models": [5]}')
    arguments = ["song.wav"] if command == "separate" else []
    result = run_command(command, "--catalogue", own_catalogue, *arguments)
    assert result.exit_code == 2
    assert "own.json is wrong: models[0] must be an object" in result.stderr


def test_the_names_of_an_own_catalogue_are_known_to_every_command(own_catalogue: Path) -> None:
    for command in (["info", "own"], ["separate", "x.wav", "-m", "own"]):
        result = run_command(*command, "--catalogue", own_catalogue)
        assert (result.exit_code, "own is not downloaded yet" in result.stderr) == (2, True)


def test_shipped_models_are_listed_with_their_path() -> None:
    row = json.loads(run_command("models", "--json").stdout.splitlines()[0])
    assert (row["name"], row["path"]) == (DEFAULT, str(shipped()[DEFAULT]))
    assert re.search(f"{DEFAULT} +vocals +[0-9]+ its own +ready", run_command("models").stdout)


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
    ("name", "hint"), [("voise", "did you mean voice"), ("q", "bsmamba2 models lists them")]
)
def test_an_unknown_name_is_an_error_with_the_known_ones(name: str, hint: str) -> None:
    result = run_command("models", "fetch", name)
    assert (result.exit_code, hint in result.stderr) == (2, True)


def test_published_figures_are_shown_before_the_download(voice: PublishedVoice) -> None:
    voice.facts |= {
        "figures": (Figures("Multisong", "MSST", {"vocals": 8.82}),),
        "note": "By nobody.",
        "page": "https://example.org/voice",
    }
    shown = voice(corrupting).stderr.splitlines()
    assert shown[:4] == [
        "voice: vocals, BSMamba2, vocals",
        "By nobody.",
        "licence of the weights: none (https://example.org/voice)",
        "published: SDR vocals 8.82 dB (test set: Multisong; measured by MSST)",
    ]
    assert re.fullmatch(r"[0-9.]+ MB from http://127.0.0.1:\d+/voice.safetensors", shown[4])


def test_a_model_without_a_published_hash_is_pinned_and_that_is_stated(
    voice: PublishedVoice,
) -> None:
    voice.facts |= {"size": None, "sha256": None}
    first = voice()
    assert first.exit_code == 0, first.stderr
    assert "size not stated from http" in first.stderr
    assert f"is not published: pinned to this file's, {voice.cached.sha256}" in first.stderr
    assert "SHA-256 is that of the first download (none is published)" in voice().stderr
    voice.path.write_bytes(voice.content[:-4] + b"\0\0\1\0")
    with pytest.raises(ModelError, match="is not the file of the first download"):
        Separator("voice", "cpu")


def test_a_model_of_several_files_is_fetched_whole(voice: PublishedVoice) -> None:
    with Server(voice.content) as server:
        source = Source(server.url, len(voice.content), voice.facts["sha256"])
        files = tuple(PublishedFile((source,), (stem,)) for stem in ("low", "high"))
        voice.facts |= {"stems": ("low", "high"), "files": files}
        result = voice()
    folder = cache_folder() / "models"
    paths = [folder / f"voice_{stem}.safetensors" for stem in ("low", "high")]
    assert (result.exit_code, result.stdout.split()) == (0, [str(path) for path in paths])
    assert [member.path for member in find_members("voice")] == paths


def test_a_size_without_a_shipped_graph_is_downloaded_and_must_be_exported(
    voice: PublishedVoice,
) -> None:
    weights = {name: np.zeros((*v.shape, 2), v.dtype) for name, v in random_weights().items()}
    voice.content = safetensors.numpy.save(weights)
    digest = hashlib.sha256(voice.content).hexdigest()
    voice.facts |= {"size": len(voice.content), "sha256": digest}
    result = voice()
    assert (result.exit_code, result.stdout) == (0, f"{voice.path}\n")
    assert "it cannot run yet: voice has a size without a shipped graph" in result.stderr


def test_a_mirror_that_does_not_exist_is_an_error(voice: PublishedVoice) -> None:
    result = run_command("models", "fetch", "voice", "--mirror", "1")
    assert (result.exit_code, "mirror must be left out" in result.stderr) == (2, True)


def test_a_mirror_is_used_on_request(
    voice: PublishedVoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(voice.content) as server:
        size, sha256 = len(voice.content), voice.facts["sha256"]
        gone = Source("https://127.0.0.1/gone.ckpt", 5, "f" * 64)
        sources = (gone, Source(server.url, size, sha256))
        model = make_published(files=(PublishedFile(sources, ("vocals",)),))
        monkeypatch.setattr(registry, "PUBLISHED", (model,))
        result = run_command("models", "fetch", "voice", "--mirror", "1")
    assert (result.exit_code, result.stdout) == (0, f"{voice.path}\n")
    assert "mirrors: --mirror 1\n" in result.stderr
    assert Separator("voice", "cpu").manifest.licence == "MIT"
