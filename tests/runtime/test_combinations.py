"""Ensembles and chains as models: files that sum to the bit, --resume, streams, the commands."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import soundfile

import bsmamba2
from bsmamba2 import Chain, Ensemble, ModelError, Separator
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.models import registry
from bsmamba2.models.cached_file import cached_files
from bsmamba2.models.catalogue import PublishedFile, Source
from support.commands import run_command
from support.engines import Stubs
from support.fixtures import Noise, WriteSong
from support.models import MANIFEST, gain_model, random_weights, write_checkpoint
from support.published import make_published


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def karaoke(tmp_path: Path) -> Path:
    """A chain in a file: an average, then a model with another chunk and rate."""
    sizes = {"first": (44100, 64), "other": (44100, 100), "dry": (48000, 50)}
    for (name, (rate, chunk)), gain in zip(sizes.items(), (0.5, 0.9, 0.25), strict=True):
        manifest = MANIFEST.replace(name=name, sample_rate=rate, chunk=chunk)
        (tmp_path / f"{name}.onnx").write_bytes(gain_model(manifest, gain=gain))
    average = {"ensemble": ["first.onnx", "other.onnx"], "weights": [3, 1]}
    path = tmp_path / "karaoke.json"
    path.write_text(json.dumps({"chain": [average, "dry.onnx"]}))
    return path


@pytest.mark.parametrize(("rate", "subtype"), [(44100, "PCM_16"), (48000, "PCM_24")])
def test_files_sum_to_the_song_to_the_bit(
    karaoke: Path, song: WriteSong, rate: int, subtype: str
) -> None:
    path = song(subtype=subtype, rate=rate, samples=5000)
    written = Separator(karaoke, "cpu").separate_file(path)
    assert list(written) == ["vocals", "vocals_instrumental", "instrumental"]
    parts = [soundfile.read(file, dtype="int32")[0].astype(int) for file in written.values()]
    np.testing.assert_array_equal(sum(parts), soundfile.read(path, dtype="int32")[0])


def test_the_shares_are_those_of_the_configuration(karaoke: Path, noise: Noise) -> None:
    audio = noise(2, 3000)
    vocals = Separator(karaoke, "cpu")(audio, 44100)["vocals"]
    share = np.vdot(vocals, audio) / np.vdot(audio, audio)
    assert share == pytest.approx((3 * 0.5 + 0.9) / 4 * 0.25, rel=0.2)  # a chain of other rates


def test_a_stream_is_the_same_as_the_whole_song(karaoke: Path, noise: Noise) -> None:
    separator, audio = Separator(karaoke, "cpu"), noise(2, 3000)
    stream = separator.stream(44100)
    parts = [stream.push(audio[:, at : at + 70]) for at in range(0, 3000, 70)]
    parts.append(stream.flush())
    whole = separator(audio, 44100)
    for stem in whole:
        streamed = np.concatenate([part[stem] for part in parts], axis=1)
        np.testing.assert_array_equal(streamed, whole[stem])


def test_a_song_is_resumed_until_the_configuration_changes(
    karaoke: Path, song: WriteSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, runs = song(samples=2000), []
    run = OrtEngine.run

    def counted(self: OrtEngine, chunk: bsmamba2.audio.array.Audio) -> bsmamba2.audio.array.Audio:
        runs.append(chunk)
        return run(self, chunk)

    monkeypatch.setattr(OrtEngine, "run", counted)
    arguments = ("separate", path, "-m", karaoke, "--device", "cpu", "--resume")
    for changes in (True, False):
        runs.clear()
        assert run_command(*arguments).exit_code == 0
        assert bool(runs) == changes
    karaoke.write_text(karaoke.read_text().replace("[3, 1]", "[3, 2]"))
    result = run_command(*arguments, "--overwrite")
    assert (result.exit_code, bool(runs)) == (0, True)


def test_a_file_of_models_is_a_model_on_the_command_line(karaoke: Path, song: WriteSong) -> None:
    arguments = ("-m", karaoke, "--stem", "vocals", "--template", "{name}_{model}_{stem}.{ext}")
    result = run_command("separate", song(samples=500), *arguments, "--device", "cpu")
    assert [Path(line).name for line in result.stdout.splitlines()] == ["song_karaoke_vocals.wav"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "karaoke.json is not JSON"),
        ('{"ensemble": ["none.onnx"]}', "there is no model file '.*/none.onnx'"),
        ('{"ensemble": ["smal"]}', "there is no model called 'smal': did you mean small?"),
        ('{"ensemble": ["first.onnx"], "stems": [["drums"]]}', "stem must be one of vocals, "),
    ],
)
def test_a_wrong_file_is_the_users_error(karaoke: Path, content: str, message: str) -> None:
    karaoke.write_text(content)
    with pytest.raises(ModelError, match=message):
        Separator(karaoke, "cpu")
    result = run_command("info", karaoke)
    assert (result.exit_code, "Traceback" in result.stderr) == (2, False)


def test_a_combination_is_used_like_any_model(stub: Stubs, noise: Noise) -> None:
    separator = Separator(Chain(stub.six_shares(), stub.half(), stem="vocals"))
    separator.prewarm()
    stems = separator(noise(2, 500), 44100, stems=["drums", "vocals"])
    assert list(stems) == ["vocals", "drums"]
    assert (separator.device, separator.guesses) == ("cpu", ())


def test_assumed_settings_are_stated_for_each_model(tmp_path: Path, song: WriteSong) -> None:
    for name in ("one", "two"):
        write_checkpoint(tmp_path / f"{name}.safetensors")
    path = tmp_path / "both.json"
    path.write_text('{"ensemble": ["one.safetensors", "two.safetensors"]}')
    result = run_command("separate", song(samples=500), "-m", path, "--device", "cpu", "--plan")
    assert result.stderr.count("assumed stems vocals") == 2
    assert {"one: assumed", "two: assumed"} <= {line[:12] for line in result.stderr.splitlines()}


def publish_bag(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Publishes and downloads ``bag``: one file for the vocals, another for the instrumental."""
    contents = [safetensors.numpy.save(random_weights(seed=seed)) for seed in (1, 2)]
    files = tuple(
        PublishedFile(
            (Source(f"https://example.org/{stem}.safetensors", len(c), sha256(c).hexdigest()),),
            (stem,),
        )
        for stem, c in zip(("vocals", "instrumental"), contents, strict=True)
    )
    bag = make_published("bag", files=files, stems=("vocals", "instrumental"))
    monkeypatch.setattr(registry, "PUBLISHED", (bag,))
    paths = [cached.path for cached in cached_files(bag)]
    for path, content in zip(paths, contents, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return paths


def test_a_published_model_of_several_files_is_one_model(
    monkeypatch: pytest.MonkeyPatch, noise: Noise
) -> None:
    paths, audio = publish_bag(monkeypatch), noise(2, 3000)
    bag = Separator("bag", "cpu")(audio, 44100)
    vocals, other = (Separator(path, "cpu")(audio, 44100) for path in paths)
    np.testing.assert_array_equal(bag["vocals"], vocals["vocals"])
    np.testing.assert_array_equal(bag["instrumental"], other["instrumental"])
    assert list(bag) == ["vocals", "instrumental", "residual"]
    np.testing.assert_allclose(sum(bag.values()), audio, atol=1e-6)
    assert (
        "average of bag_vocals (vocals), bag_instrumental (instrumental)"
        in run_command("info", "bag").stdout
    )


def test_a_lookahead_is_refused_if_a_model_runs_whole_chunks(stub: Stubs) -> None:
    with pytest.raises(ModelError, match="lookahead_ms must be None"):
        Separator(Ensemble([stub.half()] * 2)).stream(44100, lookahead_ms=100)


def test_the_configuration_prints_as_it_is_written() -> None:
    assert repr(Chain("a", "b")) == "Chain(first='a', second='b', stem='vocals', name=None)"
