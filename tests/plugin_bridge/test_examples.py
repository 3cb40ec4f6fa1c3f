"""The bridge's examples work, and the code in its README runs."""

from __future__ import annotations

import io
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pedalboard.io import AudioFile

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard import SeparationEffect
from support.commands import run_python
from support.engines import StubEngine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: Callable[..., Audio]) -> Audio:
    """One second of stereo noise, also in ``song.wav`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    with AudioFile("song.wav", "w", 22050, 2, bit_depth=32) as file:
        file.write(noise(2, 22050))
    return noise(2, 22050)


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))


@pytest.fixture
def karaoke() -> dict[str, Any]:
    return example("karaoke_chain")


def test_the_karaoke_chain_writes_a_file_as_long_as_the_song(
    song: Audio, opened: list[tuple[str, str]], karaoke: dict[str, Any]
) -> None:
    karaoke["main"](["song.wav", "karaoke.flac", "--model", "half.onnx"])
    with AudioFile("karaoke.flac") as file:
        output = file.read(file.frames)
        assert (output.shape, file.samplerate) == (song.shape, 22050)
    assert np.corrcoef(output.ravel(), song.ravel())[0, 1] > 0.9


def test_karaoke_chain_reports_an_error_in_one_line(song: Audio, karaoke: dict[str, Any]) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(SystemExit, match="error: there is no model file 'none.onnx'"):
        karaoke["main"](["song.wav", "karaoke.flac", "--model", "none.onnx"])
    assert not Path("karaoke.flac").exists()


def test_vocal_chain_in_parts_equals_the_whole_song(
    song: Audio, opened: list[tuple[str, str]]
) -> None:
    chain = example("vocal_chain")
    chain["main"](["song.wav", "mixed.wav", "--model", "half.onnx"])
    with AudioFile("mixed.wav") as file:
        output = file.read(file.frames)
    whole = chain["vocal_mix"](Separator("half.onnx"))(song, 22050)
    np.testing.assert_allclose(output, np.clip(whole, -1, 1), rtol=0, atol=1e-6)


def test_folder_watch_finds_a_file_once_after_it_stopped_growing(
    song: Audio,
    opened: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = example("watch_folder")["FolderWatch"](Path(), Path("stems"))
    assert list(watch.poll()) == []  # first seen: it may still be growing
    with Path("song.wav").open("ab") as file:
        file.write(bytes(8))
    assert list(watch.poll()) == []
    assert list(watch.poll()) == [Path("song.wav")]
    assert list(watch.poll()) == []


def test_folder_watch_writes_stems_and_continues_after_a_bad_file(
    song: Audio, opened: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.wav").write_bytes(b"no sound")
    for _ in range(2):
        arguments = [".", "--model", "half.onnx", "--every", "0", "--looks", "3"]
        example("watch_folder")["main"](arguments)
    assert {path.stem for path in Path("stems").iterdir()} == {"song_vocals", "song_instrumental"}
    printed = capsys.readouterr()
    assert printed.out.count("song_vocals") == 1
    assert "error: " in printed.err


def test_a_song_whose_name_continues_that_of_another_does_not_hide_it(
    song: Audio, opened: list[tuple[str, str]]
) -> None:
    Path("song.wav").rename("take_2.wav")
    watch = ["--model", "half.onnx", "--every", "0", "--looks", "2"]
    example("watch_folder")["main"]([".", *watch])
    shutil.copy("take_2.wav", "take.wav")
    example("watch_folder")["main"]([".", *watch])
    stems = ("instrumental", "vocals")
    expected = [f"{name}_{stem}" for name in ("take", "take_2") for stem in stems]
    assert sorted(path.stem for path in Path("stems").iterdir()) == sorted(expected)


def test_songs_of_one_name_have_stems_in_folders_of_their_own(
    song: Audio, opened: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with AudioFile("song.flac", "w", 22050, 2) as file:
        file.write(song)
    for _ in range(2):  # the second time there is nothing to do
        words = [".", "--model", "half.onnx", "--every", "0", "--looks", "2"]
        example("watch_folder")["main"](words)
    written = sorted(str(path.parent) for path in Path("stems").rglob("song_*"))
    assert written == ["stems/song.flac"] * 2 + ["stems/song.wav"] * 2
    printed = capsys.readouterr()
    assert (len(printed.out.splitlines()), printed.err) == (4, "")


def test_a_folder_that_is_missing_is_noticed_before_the_model_is_loaded(
    opened: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        example("watch_folder")["main"](["no/such/folder"])
    assert "folder must be a folder to watch; got no/such/folder" in capsys.readouterr().err
    assert opened == []


@pytest.mark.parametrize("name", ["karaoke_chain", "vocal_chain"])
def test_a_song_that_is_missing_is_a_sentence_before_the_model_is_loaded(
    name: str, opened: list[tuple[str, str]]
) -> None:
    with pytest.raises(SystemExit, match="error: .*does not exist: none.wav"):
        example(name)["main"](["none.wav", "out.wav"])
    assert opened == []


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("before_after", "matplotlib"),
        ("karaoke_chain", "pedalboard"),
        ("live_stream", "pedalboard"),
        ("vocal_chain", "pedalboard"),
    ],
)
def test_a_library_that_is_missing_is_a_sentence(name: str, library: str) -> None:
    hide = f"import sys, runpy; sys.modules[{library!r}] = None; sys.argv[1:] = ['a', 'b']; "
    path = ROOT / "examples" / f"{name}.py"
    code = f"{hide} runpy.run_path({str(path)!r}, run_name='__main__')"
    done = run_python("-c", code)
    assert done.returncode in (1, 2)
    assert re.fullmatch(f"error: .*{library}.*pip install .*\n", done.stderr)


def test_the_plot_explains_itself_without_matplotlib() -> None:
    path = str(ROOT / "examples" / "before_after.py")
    hide = "import sys, runpy; sys.modules['matplotlib'] = None; sys.argv[1:] = ['--help']; "
    done = run_python("-c", f"{hide} runpy.run_path({path!r}, run_name='__main__')")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("cut", [1, 7, 8, 100, 8192])
def test_live_stream_returns_every_sample_in_order(
    noise: Callable[..., Audio], engine: Callable[..., StubEngine], cut: int
) -> None:
    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            return super().read(min(size, cut))

    audio, sink = noise(2, 600), io.BytesIO()
    effect = SeparationEffect(engine(0.5))
    example("live_stream")["run"](effect, Pipe(audio.T.tobytes()), sink, 44100, 2)
    output = np.frombuffer(sink.getvalue(), np.float32).reshape(-1, 2).T
    np.testing.assert_allclose(output, 0.5 * audio, rtol=0, atol=1e-6)


def test_the_live_stream_runs_with_a_lookahead(tiny: Path, noise: Callable[..., Audio]) -> None:
    words = ["--model", str(tiny), "--lookahead-ms", "100", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "live_stream.py", *words],
        input=noise(20000, 2).tobytes(),
        capture_output=True,
    )
    assert len(done.stdout) == 8 * 20000
    assert b", latency 0." in done.stderr


def test_readme_code_runs(song: Audio, opened: list[tuple[str, str]]) -> None:
    text = (ROOT / "plugin_bridge" / "README.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["vocals"].shape == song.shape
    assert (names["singer"].stem, names["band"].stem) == ("vocals", "instrumental")
    assert [model for model, _ in opened] == ["bs_mamba2_vocals.ckpt"] * 3
    with AudioFile("vocals.wav") as file:
        assert file.frames == song.shape[1]


def test_before_and_after_plots_spectrograms(song: Audio, opened: list[tuple[str, str]]) -> None:
    example("before_after")["main"](["song.wav", "out", "-m", "half.onnx"])
    assert {path.name for path in Path("out").iterdir()} >= {"spectrograms.png", "song_vocals.flac"}
