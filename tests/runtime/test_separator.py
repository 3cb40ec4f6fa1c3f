"""Arrays in and arrays out: `Separator`, `separate` and `Stems`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file

import bsmamba2
from bsmamba2 import AudioError, Cancelled, DeviceError, ModelError, Separator
from bsmamba2.models.graph import shipped_graphs
from support.engines import StubModel


@pytest.mark.parametrize("shape", [(500,), (1, 500), (500, 1), (2, 500), (500, 2), (1, 1)])
def test_arrays_come_back_in_the_shape_they_had(stub, shape):
    audio = np.linspace(-1, 1, np.prod(shape)).reshape(shape)
    stems = Separator(stub.half())(audio, 48000)
    assert stems["vocals"].shape == shape
    assert stems["vocals"].dtype == np.float32
    np.testing.assert_allclose(sum(stems.values()), audio, rtol=0, atol=1e-6)


def test_an_array_lies_as_the_caller_says(stub, noise):
    separator = Separator(stub.left_and_right())
    for audio in (noise(2, 2), noise(2, 1), noise(2, 500)):
        for channels_first, given in ((True, audio), (False, audio.T)):
            stems = separator(given, 44100, channels_first=channels_first)
            left = stems["left"] if channels_first else stems["left"].T
            np.testing.assert_array_equal(left[0], audio[0])
            assert not left[1].any()


def test_only_the_stems_that_are_asked_for_are_returned(stub, noise):
    separator, audio = Separator(stub.half()), noise(2, 500)
    stems = separator(audio, 44100, stems=["no_vocals"])
    assert list(stems) == ["instrumental"]
    np.testing.assert_array_equal(stems["other"], separator(audio, 44100)["instrumental"])
    with pytest.raises(ModelError, match="one of vocals, instrumental; got 'drums'"):
        separator(audio, 44100, stems=["drums"])


def test_no_samples_in_is_no_samples_out(stub):
    stems = Separator(stub.half())(np.zeros((2, 0)), 44100)
    assert stems["instrumental"].shape == (2, 0)


def test_integers_are_refused(stub):
    with pytest.raises(AudioError, match="got int16: pass audio / 32768"):
        Separator(stub.half())(np.zeros((2, 9), np.int16), 44100)


def test_the_caller_s_array_is_left_as_it_was(stub, noise):
    def destroy(chunk):
        chunk[:] = 0
        return chunk[np.newaxis]

    audio = noise(2, 500)
    Separator(stub.of(destroy))(audio, 44100)
    np.testing.assert_array_equal(audio, noise(2, 500))


def test_the_overlap_is_the_manifest_s_unless_given(stub, noise):
    for overlap, runs in ((None, 3), (0, 2), (0.5, 4)):
        engine = stub.half(overlap=0.25)
        Separator(engine)(noise(2, 128), 44100, overlap=overlap)
        assert len(engine.lengths) == runs - (overlap == 0.5)


def test_progress_ends_at_the_whole_and_never_goes_back(stub, noise):
    seen = []
    Separator(stub.half())(
        noise(1, 200_000)[0], 44100, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    assert seen[-1] == (200_000 / 44100, 200_000 / 44100)


def test_the_caller_can_stop_from_progress(stub, noise):
    def stop(done, total):
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        Separator(stub.half())(noise(2, 500), 44100, progress=stop)


def test_another_thread_can_stop_the_work(stub, noise, song):
    def stop_by_another(chunk):
        thread = threading.Thread(target=cancel.set)
        thread.start()
        thread.join()
        return chunk[np.newaxis]

    path, engine, cancel = song(samples=400_000), stub.of(stop_by_another), threading.Event()
    with pytest.raises(Cancelled, match="stopped by the caller"):
        Separator(engine).separate_file(path, cancel=cancel)
    assert list(path.parent.iterdir()) == [path]
    assert len(engine.lengths) <= 3  # those that had begun
    with pytest.raises(Cancelled):
        Separator(engine)(noise(2, 500), 44100, cancel=cancel)


def test_one_stem_may_be_asked_for_by_its_name_alone(stub, noise, song):
    separator = Separator(stub.half())
    assert list(separator(noise(2, 500), 44100, stems="vocals")) == ["vocals"]
    assert list(separator.separate_file(song(samples=500), stems="other")) == ["instrumental"]


def test_to_prewarm_is_to_run_one_whole_chunk(stub):
    engine = stub.half()
    Separator(engine).prewarm()
    assert engine.lengths == [64]


def test_threads_that_share_a_separator_get_what_they_would_alone(tmp_path, noise):
    graph = next(g for g in shipped_graphs() if g.path.stem == "tiny")
    random = np.random.default_rng(0)
    shapes = graph.manifest.initialisers.items()
    weights = {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes}
    save_file(weights, tmp_path / "voice.safetensors")
    separator = Separator(tmp_path / "voice.safetensors", device="cpu")
    songs = [noise(2, 20_000 + 100 * k, seed=k) for k in range(4)]
    alone = [separator(audio, 44100)["vocals"] for audio in songs]
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda audio: separator(audio, 44100)["vocals"], songs)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_engine_has_its_own_device(stub):
    assert Separator(stub.half()).device == "cpu"
    with pytest.raises(DeviceError, match="device must be 'auto' with an engine"):
        Separator(stub.half(), device="cuda")


def test_a_name_or_path_is_opened_by_the_models(stub, monkeypatch):
    def open_model(model, **_):
        return StubModel(stub.half(name=model))

    monkeypatch.setattr("bsmamba2.models.loaded_model.open_model", open_model)
    separator = Separator("voice", device="cpu")
    assert (separator.manifest.name, separator.device) == ("voice", "cpu")


def test_separate_reads_a_file(stub, song):
    path = song(rate=8000)
    stems = bsmamba2.separate(path, stub.half())
    assert stems.sample_rate == 8000
    np.testing.assert_allclose(sum(stems.values()).T, soundfile.read(path)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["instrumental", "other", "accompaniment", "no_vocals"])
def test_the_instrumental_answers_to_its_other_names(stub, noise, name):
    stems = Separator(stub.half())(noise(2, 99), 44100)
    assert list(stems) == ["vocals", "instrumental"]
    assert name in stems
    np.testing.assert_array_equal(stems[name], stems["instrumental"])


def test_an_unknown_stem_is_a_key_error_that_lists_the_known(stub, noise):
    stems = Separator(stub.half())(noise(2, 99), 44100)
    assert stems.get("drums") is None
    with pytest.raises(KeyError) as error:
        stems["drums"]
    assert isinstance(error.value, ModelError)
    assert str(error.value) == "stem must be one of vocals, instrumental; got 'drums'"


def test_other_is_no_alias_where_it_is_a_stem_of_its_own(stub, noise):
    engine = stub.left_and_right(stems=("other", "instrumental"))
    stems = Separator(engine)(noise(2, 99), 44100)
    assert not np.array_equal(stems["other"], stems["instrumental"])


def test_stems_show_what_they_are(stub, noise):
    stems = Separator(stub.half())(noise(2, 48000), 48000)
    assert repr(stems) == "Stems(vocals, instrumental: 1.000 s, 2 channels, 48000 Hz)"


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_saved_stems_of_a_song_sum_to_it_to_the_bit(stub, song, tmp_path, subtype):
    path = song("song.wav", subtype)
    saved = bsmamba2.separate(path, stub.lower_half_band()).save(tmp_path / "out", subtype=subtype)
    total = sum(soundfile.read(stem, dtype="int32")[0] for stem in saved.values())
    np.testing.assert_array_equal(total, soundfile.read(path, dtype="int32")[0])


def test_saved_stems_are_named_after_the_song_or_as_asked(stub, song, noise, tmp_path):
    from_file = bsmamba2.separate(song(), stub.half()).save(tmp_path / "a")
    from_array = Separator(stub.half())(noise(99, 2), 44100).save(tmp_path / "b", format="wav")
    assert from_file["vocals"] == tmp_path / "a" / "song_vocals.flac"
    assert from_array["vocals"] == tmp_path / "b" / "vocals.wav"
    named = Separator(stub.half())(noise(1, 99)[0], 44100).save(tmp_path, name="x")
    assert named["instrumental"] == tmp_path / "x_instrumental.flac"


def test_a_saved_stem_keeps_rate_length_and_channels(stub, noise, tmp_path):
    saved = Separator(stub.half())(noise(999, 2), 48000).save(tmp_path)
    audio, rate = soundfile.read(saved["vocals"])
    assert (audio.shape, rate) == ((999, 2), 48000)


def test_there_is_no_file_of_nothing(stub, tmp_path):
    with pytest.raises(AudioError, match="no samples to save"):
        Separator(stub.half())(np.zeros(0), 44100).save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
