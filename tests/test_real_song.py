"""A real song through the command, with a tiny network and with one of the paper's size."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from bsmamba2.cli import main
from bsmamba2_network import BSMamba2

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("apt-get"):
        pytest.skip("the song is in a package of Debian")
    script = ["bash", str(EXAMPLES / "real_song.sh"), str(tmp_path_factory.mktemp("song"))]
    run = subprocess.run(script, check=True, capture_output=True, text=True)
    return Path(run.stdout.strip())


@pytest.mark.parametrize(("preset", "seconds"), [("tiny", 20), ("paper", 1)])
def test_stems_of_a_real_song_sum_to_it(
    song: Path, tmp_path: Path, preset: str, seconds: int
) -> None:
    audio, rate = soundfile.read(song, frames=seconds * 44100, start=44100 * 30)
    soundfile.write(tmp_path / "song.flac", audio, rate, "PCM_24")
    BSMamba2.untrained(preset).save(tmp_path / "voice.safetensors")
    arguments = ["separate", "song.flac", "-m", "voice.safetensors", "--json", "--format", "wav"]
    result = CliRunner().invoke(main, [str(tmp_path / a) if "." in a else a for a in arguments])
    assert result.exit_code == 0, result.output
    stems = [soundfile.read(p)[0] for p in json.loads(result.stdout)["outputs"].values()]
    mixture = soundfile.read(tmp_path / "song.flac")[0]
    np.testing.assert_allclose(sum(stems), mixture, rtol=0, atol=1e-7)
    assert all(np.std(stem) > 1e-4 for stem in stems)
