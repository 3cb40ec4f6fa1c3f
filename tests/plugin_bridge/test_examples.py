"""The examples of the bridge do what they say, and the README's code runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from pedalboard.io import AudioFile

ROOT = Path(__file__).parents[2]


@pytest.fixture
def song(tmp_path, monkeypatch, noise):
    """A second of stereo noise, ``song.wav``, in the working directory."""
    monkeypatch.chdir(tmp_path)
    with AudioFile("song.wav", "w", 22050, 2, bit_depth=32) as file:
        file.write(noise(2, 22050))
    return noise(2, 22050)


@pytest.fixture
def karaoke():
    return runpy.run_path(str(ROOT / "examples" / "karaoke_chain.py"))


def test_the_karaoke_chain_writes_a_file_as_long_as_the_song(song, opened, karaoke):
    karaoke["main"](["song.wav", "karaoke.flac", "--model", "half.onnx"])
    with AudioFile("karaoke.flac") as file:
        output = file.read(file.frames)
        assert (output.shape, file.samplerate) == (song.shape, 22050)
    assert np.corrcoef(output.ravel(), song.ravel())[0, 1] > 0.9


def test_the_karaoke_chain_says_what_is_wrong_in_a_line(song, karaoke):
    pytest.importorskip("onnxruntime")
    with pytest.raises(SystemExit, match="error: no model was named"):
        karaoke["main"](["song.wav", "karaoke.flac"])
    assert not Path("karaoke.flac").exists()


def test_the_readme_s_code_runs(song, opened):
    text = (ROOT / "plugin_bridge" / "README.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    names = {}
    exec(code, names)
    assert names["vocals"].shape == song.shape
    assert (names["singer"].stem, names["band"].stem) == ("vocals", "instrumental")
    assert [model for model, _ in opened] == ["bs_mamba2_vocals.ckpt"] * 3
    with AudioFile("vocals.wav") as file:
        assert file.frames == song.shape[1]
