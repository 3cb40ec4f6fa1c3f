"""A separator whose model runs on a server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from bsmamba2 import DeviceError, Ensemble, ModelError, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import CPU
from bsmamba2.models.check import make_check
from bsmamba2.models.open_model import open_model
from bsmamba2_cluster.triton import ServerOptions, connect, open_engine, write_repository
from bsmamba2_cluster.triton.config import MANIFEST_PARAMETER, STREAMING_PARAMETER
from support.engines import StubEngine
from support.kserve import KServe, answer, hang_up, returning, status
from support.models import MANIFEST, gain_model, random_weights, write_checkpoint


@pytest.fixture(scope="module")
def local(checkpoint: Path) -> Separator:
    return Separator(checkpoint, "cpu")


@pytest.fixture(autouse=True)
def _whole_server(shared_server: KServe) -> Iterator[None]:
    yield
    shared_server.is_triton = True


def test_a_song_is_separated_as_on_this_machine(
    shared_server: KServe, local: Separator, audio: Audio
) -> None:
    remote = connect(shared_server.url, "tiny")
    expected, stems = local(audio, 44100), remote(audio, 44100)
    assert list(stems) == ["vocals", "instrumental"]
    assert snr_db(expected["vocals"], stems["vocals"]) >= 90
    assert np.allclose(stems["vocals"] + stems["instrumental"], audio, atol=1e-6)


def test_a_file_is_separated_at_its_own_rate_with_one_channel(
    shared_server: KServe, local: Separator, audio: Audio, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "song.wav", audio[0, :48000], 48000, "FLOAT")
    found = []
    for name, separator in (("a", local), ("b", connect(shared_server.url, "tiny"))):
        paths = separator.separate_file(tmp_path / "song.wav", tmp_path / name)
        found.append(soundfile.read(paths["vocals"], dtype="float32")[0])
    assert snr_db(*found) >= 90


@pytest.mark.parametrize("channels", [2, 4])
def test_a_stream_equals_one_on_this_machine(
    channels: int, shared_server: KServe, local: Separator, audio: Audio
) -> None:
    song = np.concatenate([audio, audio[::-1]])[:channels, :60_000]
    outputs = []
    for separator in (local, connect(shared_server.url, "tiny")):
        stream = separator.stream(44100, channels, lookahead_ms=200, block_ms=300)
        parts = [stream.push(song[:, at : at + 7000]) for at in range(0, 60_000, 7000)]
        parts.append(stream.flush())
        outputs.append(np.concatenate([part["vocals"] for part in parts], axis=1))
    assert outputs[0].shape == song.shape
    assert snr_db(*outputs) >= 90


def test_an_exported_stream_separates_songs_too(
    shared_server: KServe, local: Separator, audio: Audio
) -> None:
    remote = connect(shared_server.url, "tiny_streaming")
    song = audio[:, :50_000]
    assert snr_db(local(song, 44100)["vocals"], remote(song, 44100)["vocals"]) >= 90
    stream = remote.stream(44100, lookahead_ms=200)
    parts = stream.push(song)["vocals"], stream.flush()["vocals"]
    assert np.concatenate(parts, axis=1).shape == song.shape


def test_a_server_is_a_member_of_an_ensemble(
    shared_server: KServe, checkpoint: Path, audio: Audio
) -> None:
    engine = open_engine(ServerOptions(shared_server.url), "tiny")
    both = Separator(Ensemble([engine, engine]))(audio[:, :50_000], 44100)
    one = Separator(engine)(audio[:, :50_000], 44100)
    assert snr_db(one["vocals"], both["vocals"]) >= 90


def test_the_separator_names_the_server(shared_server: KServe) -> None:
    assert repr(connect(shared_server.url, "tiny")) == (
        f"Separator(tiny on {shared_server.url}: vocals, instrumental)"
    )


@pytest.mark.parametrize("is_triton", [True, False])
def test_a_model_that_the_server_lacks_is_named(is_triton: bool, shared_server: KServe) -> None:
    shared_server.is_triton = is_triton
    listed = "; it has gain, tiny, tiny_streaming" if is_triton else ""
    with pytest.raises(ModelError, match=f"has no model 'paper' .*: check its name{listed}$"):
        connect(shared_server.url, "paper")


def test_the_same_model_here_is_accepted(shared_server: KServe, checkpoint: Path) -> None:
    assert connect(shared_server.url, "tiny", model=checkpoint).manifest.name == "tiny"


def test_a_server_of_another_checkpoint_is_refused(shared_server: KServe, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other.safetensors", random_weights(seed=1))
    with pytest.raises(ModelError, match=r"must be other \(SHA-256 .*; got tiny \(SHA-256 "):
        connect(shared_server.url, "tiny", model=other)


def test_a_server_of_another_export_is_refused(shared_server: KServe, tmp_path: Path) -> None:
    path = tmp_path / "gain.onnx"
    path.write_bytes(gain_model(MANIFEST.replace(overlap=0.5)))
    with pytest.raises(ModelError, match=r"must be gain .*; got gain"):
        connect(shared_server.url, "gain", model=path)


@pytest.mark.parametrize("name", ["tiny", "gain"])
def test_a_server_that_is_not_triton_needs_the_model_here(
    name: str, shared_server: KServe, checkpoint: Path, gain: Path, audio: Audio
) -> None:
    shared_server.is_triton = False
    with pytest.raises(ModelError, match="states no manifest: .* or give model"):
        connect(shared_server.url, name)
    remote = connect(shared_server.url, name, model={"tiny": checkpoint, "gain": gain}[name])
    assert remote(audio[:, :1000], 44100)["vocals"].shape == (2, 1000)
    with pytest.raises(ModelError, match="lookahead_ms must be None with"):
        remote.stream(44100, lookahead_ms=200)


def test_a_server_that_computes_something_else_is_found_by_the_check(
    gain: Path, tmp_path: Path
) -> None:
    honest = open_model(gain).chunk_engine(CPU)
    for name, content in (("honest", gain_model), ("other", partial(gain_model, gain=0.4))):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content(MANIFEST.replace(check=make_check(honest))))
        write_repository(path, tmp_path / "models", name=name)
    with KServe(tmp_path / "models") as server:
        assert connect(server.url, "honest")
        with pytest.raises(DeviceError, match="gain on http://.* does not reproduce its check"):
            connect(server.url, "other")
        assert connect(server.url, "other", verify=False)


def test_a_stream_that_computes_something_else_is_found_by_the_check(
    repository: Path, checkpoint: Path
) -> None:
    wrong = make_check(StubEngine(lambda chunk: chunk[np.newaxis]))
    manifest = open_model(checkpoint).graph(streaming=True).manifest.replace(check=wrong)
    with KServe(repository) as server:
        _state(server, "tiny_streaming", MANIFEST_PARAMETER, manifest.to_json())
        remote = connect(server.url, "tiny")
        with pytest.raises(DeviceError, match="does not reproduce its check"):
            remote.stream(44100, lookahead_ms=100)
        assert connect(server.url, "tiny", verify=False).stream(44100, lookahead_ms=100)


def test_a_stream_of_another_model_is_refused(repository: Path, checkpoint: Path) -> None:
    other = open_model(checkpoint).graph(streaming=True).manifest
    other = other.replace(name="other", checkpoint_sha256="0" * 64)
    with KServe(repository) as server:
        _state(server, "tiny_streaming", MANIFEST_PARAMETER, other.to_json())
        with pytest.raises(ModelError, match="must run the streams of 'tiny'; got other"):
            connect(server.url, "tiny").stream(44100, lookahead_ms=100)


def test_a_model_of_chunks_is_not_taken_for_one_of_streams(repository: Path) -> None:
    with KServe(repository) as server:
        _state(server, "tiny", STREAMING_PARAMETER, "gain")
        with pytest.raises(ModelError, match="'gain' .* must run the streams of 'tiny'"):
            connect(server.url, "tiny").stream(44100, lookahead_ms=100)


def _state(server: KServe, model: str, parameter: str, value: str) -> None:
    """Replaces a parameter of a model's configuration."""
    server.models[model].config.parameters[parameter].string_value = value


def test_a_song_survives_a_busy_server_and_a_lost_connection(server: KServe, audio: Audio) -> None:
    remote = connect(server.url, "gain")
    server.faults += [status(503), hang_up]
    song = audio[:, :500]
    assert snr_db(song * np.float32(0.5), remote(song, 44100)["vocals"]) >= 90


def test_an_output_of_another_shape_is_refused(server: KServe, audio: Audio) -> None:
    remote = connect(server.url, "gain")
    server.faults.append(returning((1, 1, 2, 3, 9, 2)))
    with pytest.raises(ModelError, match=r"'gain' must return \(1, 1, 2, 17, 9, 2\); got"):
        remote(audio[:, :64], 44100)


def test_a_configuration_that_is_no_configuration_is_refused(
    server: KServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents: tuple[Any, ...] = ([], {"parameters": 3}, {"parameters": {"bsmamba2.manifest": 3}})
    for content in contents:
        monkeypatch.setattr(
            server, "describe", lambda request, content=content: answer(request, 200, content)
        )
        with pytest.raises(ModelError, match="states no manifest"):
            connect(server.url, "gain")


def test_a_damaged_manifest_is_refused(server: KServe) -> None:
    parameter = server.models["gain"].config.parameters["bsmamba2.manifest"]
    parameter.string_value = parameter.string_value[:-1]
    with pytest.raises(ModelError, match="the manifest is not JSON"):
        connect(server.url, "gain")
