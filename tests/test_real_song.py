"""A real song, through the command, at a small size and at the paper's."""

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
def song(tmp_path_factory):
    if not shutil.which("apt-get"):
        pytest.skip("the song comes from a package of Debian's")
    script = ["bash", EXAMPLES / "real_song.sh", tmp_path_factory.mktemp("song")]
    run = subprocess.run(script, check=True, capture_output=True, text=True)
    return Path(run.stdout.strip())


@pytest.mark.parametrize(("preset", "seconds"), [("tiny", 20), ("paper", 1)])
def test_a_real_song_becomes_stems_that_sum_to_it(song, tmp_path, preset, seconds):
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
