"""From arrays to arrays: ``Separator`` and ``separate``."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import bsmamba2
from bsmamba2 import AudioError, Cancelled, DeviceError, ModelError, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.models.graph import shipped_graphs
from support.engines import StubModel, Stubs
from support.fixtures import Noise, WriteSong
from support.models import write_checkpoint


@pytest.mark.parametrize("shape", [(500,), (1, 500), (500, 1), (2, 500), (500, 2), (1, 1)])
def test_stems_have_the_shape_of_the_input(stub: Stubs, shape: tuple[int, ...]) -> None:
    audio = np.linspace(-1, 1, np.prod(shape)).reshape(shape)
    stems = Separator(stub.half())(audio, 48000)
    assert stems["vocals"].shape == shape
    assert stems["vocals"].dtype == np.float32
    np.testing.assert_allclose(np.sum([*stems.values()], axis=0), audio, rtol=0, atol=1e-6)


def test_the_caller_can_state_which_axis_is_the_channels(stub: Stubs, noise: Noise) -> None:
    separator = Separator(stub.left_and_right())
    for audio in (noise(2, 2), noise(2, 1), noise(2, 500)):
        for channels_first, array in ((True, audio), (False, audio.T)):
            stems = separator(array, 44100, channels_first=channels_first)
            left = stems["left"] if channels_first else stems["left"].T
            np.testing.assert_array_equal(left[0], audio[0])
            assert not left[1].any()


def test_only_the_requested_stems_are_returned(stub: Stubs, noise: Noise) -> None:
    separator, audio = Separator(stub.half()), noise(2, 500)
    stems = separator(audio, 44100, stems=["no_vocals"])
    assert list(stems) == ["instrumental"]
    np.testing.assert_array_equal(stems["other"], separator(audio, 44100)["instrumental"])
    with pytest.raises(ModelError, match="one of vocals, instrumental; got 'drums'"):
        separator(audio, 44100, stems=["drums"])


def test_one_stem_may_be_requested_as_text(stub: Stubs, noise: Noise, song: WriteSong) -> None:
    separator = Separator(stub.half())
    assert list(separator(noise(2, 500), 44100, stems="vocals")) == ["vocals"]
    assert list(separator.separate_file(song(samples=500), stems="other")) == ["instrumental"]


def test_empty_input_gives_empty_output(stub: Stubs) -> None:
    stems = Separator(stub.half())(np.zeros((2, 0)), 44100)
    assert stems["instrumental"].shape == (2, 0)


def test_integers_are_refused_with_a_fix(stub: Stubs) -> None:
    with pytest.raises(AudioError, match="got int16: pass audio / 32768"):
        Separator(stub.half())(np.zeros((2, 9), np.int16), 44100)


def test_an_engine_cannot_change_the_array_of_the_caller(stub: Stubs, noise: Noise) -> None:
    def overwrite(chunk: Audio) -> Audio:
        chunk[:] = 0
        return chunk[np.newaxis]

    audio = noise(2, 500)
    Separator(stub.of(overwrite))(audio, 44100)
    np.testing.assert_array_equal(audio, noise(2, 500))


@pytest.mark.parametrize(("overlap", "runs"), [(None, 3), (0, 2), (0.5, 3), (0.75, 5)])
def test_the_overlap_is_that_of_the_manifest_unless_given(
    stub: Stubs, noise: Noise, overlap: float | None, runs: int
) -> None:
    engine = stub.half(overlap=0.25)
    Separator(engine)(noise(2, 128), 44100, overlap=overlap)
    assert len(engine.lengths) == runs


def test_progress_never_decreases_and_ends_at_the_length(stub: Stubs, noise: Noise) -> None:
    reports: list[tuple[float, float]] = []
    Separator(stub.half())(
        noise(1, 200_000)[0], 44100, progress=lambda done, total: reports.append((done, total))
    )
    assert reports == sorted(reports)
    assert reports[-1] == (200_000 / 44100, 200_000 / 44100)


def test_an_error_in_progress_stops_the_work(stub: Stubs, noise: Noise) -> None:
    def stop(done: float, total: float) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        Separator(stub.half())(noise(2, 500), 44100, progress=stop)


def test_another_thread_can_stop_the_work(stub: Stubs, noise: Noise, song: WriteSong) -> None:
    cancel = threading.Event()

    def cancel_from_a_thread(chunk: Audio) -> Audio:
        thread = threading.Thread(target=cancel.set)
        thread.start()
        thread.join()
        return chunk[np.newaxis]

    path, engine = song(samples=400_000), stub.of(cancel_from_a_thread)
    with pytest.raises(Cancelled, match="stopped by the caller"):
        Separator(engine).separate_file(path, cancel=cancel)
    assert list(path.parent.iterdir()) == [path]
    assert len(engine.lengths) <= 3  # the runs that had already started
    with pytest.raises(Cancelled):
        Separator(engine)(noise(2, 500), 44100, cancel=cancel)


def test_prewarming_runs_one_whole_chunk(stub: Stubs) -> None:
    engine = stub.half()
    Separator(engine).prewarm()
    assert engine.lengths == [64]


def test_threads_that_share_a_separator_get_the_same_results_as_one(
    tmp_path: Path, noise: Noise
) -> None:
    graph = next(g for g in shipped_graphs() if g.path.stem == "tiny")
    random = np.random.default_rng(0)
    shapes = graph.manifest.initialisers.items()
    weights = {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes}
    separator = Separator(write_checkpoint(tmp_path / "voice.safetensors", weights), device="cpu")
    songs = [noise(2, 20_000 + 100 * k, seed=k) for k in range(4)]
    alone = [separator(audio, 44100)["vocals"] for audio in songs]
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda audio: separator(audio, 44100)["vocals"], songs)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_engine_has_its_own_device(stub: Stubs) -> None:
    assert Separator(stub.half()).device == "cpu"
    with pytest.raises(DeviceError, match="device must be 'auto' with an engine"):
        Separator(stub.half(), device="cuda")


def test_a_name_or_path_is_opened_as_a_model(stub: Stubs, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_model(model: str, **_: Any) -> StubModel:
        return StubModel(stub.half(name=model))

    monkeypatch.setattr("bsmamba2.models.loaded_model.open_model", open_model)
    separator = Separator("voice", device="cpu")
    assert (separator.manifest.name, separator.device) == ("voice", "cpu")


def test_separate_reads_a_file(stub: Stubs, song: WriteSong) -> None:
    path = song(rate=8000)
    stems = bsmamba2.separate(path, stub.half())
    total = np.sum([*stems.values()], axis=0)
    assert stems.sample_rate == 8000
    np.testing.assert_allclose(total.T, soundfile.read(path)[0], rtol=0, atol=1e-6)


def test_separate_returns_the_requested_stems(stub: Stubs, song: WriteSong) -> None:
    assert list(bsmamba2.separate(song(), stub.half(), stems=["vocals"])) == ["vocals"]


def test_a_separator_is_shown_with_its_model_device_and_stems(stub: Stubs) -> None:
    shown = repr(Separator(stub.half(name="voice")))
    assert shown == "Separator(voice on cpu: vocals, instrumental)"


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_loads_the_model_again_from_any_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noise: Noise,
    copied: Callable[[Separator], Separator],
) -> None:
    write_checkpoint(tmp_path / "voice.safetensors")
    monkeypatch.chdir(tmp_path)
    separator = Separator("voice.safetensors", "cpu")
    monkeypatch.chdir("/")
    twin, audio = copied(separator), noise(2, 9000)
    assert twin is not separator
    np.testing.assert_array_equal(twin(audio, 44100)["vocals"], separator(audio, 44100)["vocals"])


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_cannot_be_copied_says_what_to_do_instead(
    stub: Stubs, copied: Callable[[object], object]
) -> None:
    separator = Separator(stub.half())
    with pytest.raises(ModelError, match="name or a path to copy or pickle a Sep.*the same engine"):
        copied(separator)
    with pytest.raises(ModelError, match="a Stream cannot be copied or pickled.*Separator.stream"):
        copied(separator.stream(44100))
    stems = separator(np.zeros((2, 9), np.float32), 44100)
    assert copied(stems)
