"""The examples of the bridge do what they say, and the README's code runs."""

from __future__ import annotations

import io
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pedalboard.io import AudioFile

from bsmamba2 import Separator
from bsmamba2_pedalboard import SeparationEffect

ROOT = Path(__file__).parents[2]


@pytest.fixture
def song(tmp_path, monkeypatch, noise):
    """A second of stereo noise, ``song.wav``, in the working directory."""
    monkeypatch.chdir(tmp_path)
    with AudioFile("song.wav", "w", 22050, 2, bit_depth=32) as file:
        file.write(noise(2, 22050))
    return noise(2, 22050)


def example(name):
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))


@pytest.fixture
def karaoke():
    return example("karaoke_chain")


def test_the_karaoke_chain_writes_a_file_as_long_as_the_song(song, opened, karaoke):
    karaoke["main"](["song.wav", "karaoke.flac", "--model", "half.onnx"])
    with AudioFile("karaoke.flac") as file:
        output = file.read(file.frames)
        assert (output.shape, file.samplerate) == (song.shape, 22050)
    assert np.corrcoef(output.ravel(), song.ravel())[0, 1] > 0.9


def test_the_karaoke_chain_says_what_is_wrong_in_a_line(song, karaoke):
    pytest.importorskip("onnxruntime")
    with pytest.raises(SystemExit, match="error: there is no model file 'none.onnx'"):
        karaoke["main"](["song.wav", "karaoke.flac", "--model", "none.onnx"])
    assert not Path("karaoke.flac").exists()


def test_the_vocal_chain_is_a_file_in_parts_and_the_same_as_the_whole(song, opened):
    chain = example("vocal_chain")
    chain["main"](["song.wav", "mixed.wav", "--model", "half.onnx"])
    with AudioFile("mixed.wav") as file:
        output = file.read(file.frames)
    whole = chain["vocal_mix"](Separator("half.onnx"))(song, 22050)
    np.testing.assert_allclose(output, np.clip(whole, -1, 1), rtol=0, atol=1e-6)


def test_the_watched_folder_waits_until_a_file_is_whole_and_separates_it_once(
    song, opened, capsys, monkeypatch
):
    watch = example("watch_folder")["Watch"](Path(), Path("stems"))
    assert list(watch.look()) == []  # seen for the first time: it may still grow
    with Path("song.wav").open("ab") as file:
        file.write(bytes(8))
    assert list(watch.look()) == []
    assert list(watch.look()) == [Path("song.wav")]
    assert list(watch.look()) == []


def test_the_watched_folder_has_stems_and_goes_on_after_a_bad_file(song, opened, capsys):
    Path("bad.wav").write_bytes(b"no sound")
    for _ in range(2):
        arguments = [".", "--model", "half.onnx", "--every", "0", "--looks", "3"]
        example("watch_folder")["main"](arguments)
    assert {path.stem for path in Path("stems").iterdir()} == {"song_vocals", "song_instrumental"}
    told = capsys.readouterr()
    assert told.out.count("song_vocals") == 1
    assert "error: " in told.err


@pytest.mark.parametrize("cut", [1, 7, 8, 100, 8192])
def test_the_live_stream_passes_every_sample_in_its_place(noise, engine, cut):
    class Pipe(io.BytesIO):
        def read(self, size):
            return super().read(min(size, cut))

    audio, sink = noise(2, 600), io.BytesIO()
    effect = SeparationEffect(engine(0.5))
    example("live_stream")["run"](effect, Pipe(audio.T.tobytes()), sink, 44100, 2)
    output = np.frombuffer(sink.getvalue(), np.float32).reshape(-1, 2).T
    np.testing.assert_allclose(output, 0.5 * audio, rtol=0, atol=1e-6)


def test_the_live_stream_runs_with_a_lookahead(tiny, noise):
    words = ["--model", str(tiny), "--lookahead-ms", "100", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "live_stream.py", *words],
        input=noise(20000, 2).tobytes(),
        capture_output=True,
    )
    assert len(done.stdout) == 8 * 20000
    assert b"s behind" in done.stderr


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


def test_before_and_after_are_drawn(song, opened):
    example("before_after")["main"](["song.wav", "out", "-m", "half.onnx"])
    assert {path.name for path in Path("out").iterdir()} >= {"spectrograms.png", "song_vocals.flac"}
