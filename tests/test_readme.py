"""The code on the pages runs, on a tiny checkpoint that has the published name."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from bsmamba2.cli import main
from bsmamba2.files.hashing import file_sha256
from bsmamba2.models import registry
from bsmamba2_network import BSMamba2
from support.published import cached_file, make_published

ROOT = Path(__file__).parents[1]
READMES = ["README.md", "network/README.md", "plugin_bridge/README.md"]
GUIDES = [page for page in sorted((ROOT / "docs").glob("*.md")) if "```python" in page.read_text()]
PAGES = READMES + [f"docs/{page.name}" for page in GUIDES]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Songs and a checkpoint under the names that the pages use; the checkpoint is also cached."""
    net, noise = BSMamba2.untrained("tiny"), np.random.default_rng(0).uniform(-0.2, 0.2, (9000, 2))
    checkpoint = tmp_path / "bs_mamba2_vocals.ckpt"
    torch.save(net.state_dict(), checkpoint)
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    fetched = make_published(
        registry.PUBLISHED[0].name, size=checkpoint.stat().st_size, sha256=file_sha256(checkpoint)
    )
    monkeypatch.setattr(registry, "PUBLISHED", (fetched,))
    path = cached_file(fetched).path
    path.parent.mkdir(parents=True)
    shutil.copy(checkpoint, path)
    (tmp_path / "albums").mkdir()
    for name in ("song.flac", "song.wav", "albums/other.flac"):
        soundfile.write(tmp_path / name, noise, 44100)
    return tmp_path


@pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray.data.context")
@pytest.mark.parametrize("page", PAGES)
def test_python_on_the_pages_runs(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    audio = np.zeros((2, 9000), np.float32)
    names = {"audio": audio, "sample_rate": 44100, "waveform": torch.zeros(1, 2, 9000)}
    for block in blocks(page, "python"):
        here = block.replace('"cuda"', '"cpu"')
        exec(compile(here, page, "exec"), names)


def test_the_readme_takes_an_array_in_the_other_orientation_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    audio, sample_rate = soundfile.read("song.flac", dtype="float32")
    names = {"audio": audio, "sample_rate": sample_rate}
    (block,) = (block for block in blocks("README.md", "python") if ".stream(" in block)
    exec(compile(block, "README.md", "exec"), names)
    assert sum(len(part) for part in names["vocals"]) == len(audio)
    assert names["stems"]["vocals"].shape == audio.shape


@pytest.mark.parametrize("page", ["README.md", "docs/for-producers.md", "docs/for-engineers.md"])
def test_commands_on_the_pages_run(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    commands = [
        shlex.split(line.replace("1:00", "0:00"), comments=True)[1:]  # the songs are short
        for block in blocks(page, "bash")
        for line in block.splitlines()
        if line.startswith("bsmamba2 ")
        and not line.startswith(("bsmamba2 bench", "bsmamba2 ui"))  # a minute; until Ctrl-C
    ]
    assert commands
    for command in commands:
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, (command, result.output)


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in ROOT.glob("**/*.md")
        if {".venv", "build", "site"}.isdisjoint(page.relative_to(ROOT).parts)
    ],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_links_between_pages_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
