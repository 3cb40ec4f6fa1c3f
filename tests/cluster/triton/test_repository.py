"""Repositories: their files, names and refusals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from bsmamba2 import Manifest, ModelError
from bsmamba2.devices import kernel
from bsmamba2.formats.engine_file import BuildKey, EngineFile, description_path
from bsmamba2_cluster.triton.repository import write_repository
from support.kserve import read_config

needs_library = pytest.mark.skipif(kernel.library() is None, reason="needs the native library")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write_engine(folder: Path, **changes: Any) -> Path:
    """Writes an engine that this user built, as far as its description tells."""
    path = folder / "voice.engine"
    path.write_bytes(b"an engine")
    known: dict[str, Any] = {"backend": "tensorrt", "target": "tensorrt", "io": "spectrum"}
    known |= changes
    key = BuildKey("0" * 64, known["backend"], "10.13", ("sm89",), 8, 401, known["target"])
    digest = hashlib.sha256(b"an engine").hexdigest()
    EngineFile(path, Manifest("voice", io=known["io"]), key, digest).write_description()
    return path


def test_a_checkpoint_gives_a_model_for_chunks_and_one_for_streams(repository: Path) -> None:
    expected = [
        f"{name}/{file}"
        for name in ("gain", "tiny", "tiny_streaming")
        for file in ("1/model.onnx", "config.pbtxt", "manifest.json")
    ]
    assert files(repository) == expected


def test_an_exported_stream_gives_one_model(repository: Path, tmp_path: Path) -> None:
    exported = repository / "tiny_streaming" / "1" / "model.onnx"
    assert write_repository(exported, tmp_path, name="steps") == (tmp_path / "steps",)


def test_a_model_is_replaced_only_on_request(gain: Path, tmp_path: Path) -> None:
    write_repository(gain, tmp_path)
    with pytest.raises(ModelError, match="gain exists: .* overwriting with overwrite=True"):
        write_repository(gain, tmp_path)
    (tmp_path / "gain" / "1" / "old.bin").touch()
    write_repository(gain, tmp_path, batch=2, overwrite=True)
    assert files(tmp_path / "gain") == ["1/model.onnx", "config.pbtxt", "manifest.json"]
    assert read_config((tmp_path / "gain" / "config.pbtxt").read_text()).max_batch_size == 2


@pytest.mark.parametrize(
    ("name", "folder"),
    [("../../up", "up"), ("a/b c", "a_b_c"), ("Stimme №1", "Stimme_1"), ("x" * 300, "x" * 100)],
)
def test_a_name_becomes_one_plain_folder(
    name: str, folder: str, gain: Path, tmp_path: Path
) -> None:
    assert write_repository(gain, tmp_path / "models", name=name) == (tmp_path / "models" / folder,)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


@pytest.mark.parametrize("name", ["..", "声", "/", " "])
def test_a_name_without_letters_that_fit_a_url_is_refused(
    name: str, gain: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="name must contain letters or digits; got"):
        write_repository(gain, tmp_path, name=name)


@pytest.mark.parametrize("batch", [0, 65])
def test_a_batch_out_of_range_is_refused(batch: int, gain: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"batch must be in \[1, 64\]; got {batch}"):
        write_repository(gain, tmp_path, batch=batch)


@needs_library
def test_the_kernels_are_copied_and_named_by_their_path_on_the_server(
    gain: Path, tmp_path: Path
) -> None:
    (folder,) = write_repository(gain, tmp_path, kernel_at="/srv/models")
    library = kernel.library()
    assert library is not None
    assert (folder / "1" / library.name).read_bytes() == library.read_bytes()
    config = read_config((folder / "config.pbtxt").read_text())
    assert list(config.model_operations.op_library_filename) == [
        f"/srv/models/gain/1/{library.name}"
    ]


def test_a_relative_path_on_the_server_is_refused(gain: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="kernel_at must be the absolute path .*; got 'models'"):
        write_repository(gain, tmp_path, kernel_at="models")


def test_without_the_library_nothing_is_written(
    gain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSMAMBA2_KERNEL", "off")
    with pytest.raises(ModelError, match="kernel_at must be left out where the native library"):
        write_repository(gain, tmp_path, kernel_at="/models")
    assert files(tmp_path) == []


def test_an_engine_becomes_a_plan_with_its_own_batch(tmp_path: Path) -> None:
    (folder,) = write_repository(write_engine(tmp_path), tmp_path / "models")
    assert (folder / "1" / "model.plan").read_bytes() == b"an engine"
    config = read_config((folder / "config.pbtxt").read_text())
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
    assert config.max_batch_size == 8
    assert [(t.name, list(t.dims)) for t in config.input] == [("spectrum", [2, -1, 1025, 2])]
    assert [(t.name, list(t.dims)) for t in config.output] == [("stems", [1, 2, -1, 1025, 2])]


@pytest.mark.parametrize(
    "changes", [{"backend": "tensorrt-rtx"}, {"target": "tensorrt-plugin"}, {"io": "waveform"}]
)
def test_an_engine_that_triton_cannot_run_is_refused(
    changes: dict[str, str], tmp_path: Path
) -> None:
    engine = write_engine(tmp_path, **changes)
    with pytest.raises(ModelError, match="must be an engine of tensorrt, without plugin"):
        write_repository(engine, tmp_path / "models")


def test_an_engine_of_another_author_is_refused_unless_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = write_engine(tmp_path)
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "another user"))
    with pytest.raises(ModelError, match="was not built here"):
        write_repository(engine, tmp_path / "models")
    assert write_repository(engine, tmp_path / "models", trust_engine=True)


def test_an_engine_that_was_replaced_is_refused(tmp_path: Path) -> None:
    engine = write_engine(tmp_path)
    assert json.loads(description_path(engine).read_text())
    engine.write_bytes(b"another engine")
    with pytest.raises(ModelError, match="it was damaged or replaced"):
        write_repository(engine, tmp_path / "models")


def test_kernels_for_an_engine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="kernel_at must be left out with an engine"):
        write_repository(write_engine(tmp_path), tmp_path / "models", kernel_at="/models")


def test_an_interrupted_write_leaves_no_configuration(
    gain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repository(gain, tmp_path)

    def fail(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bsmamba2_cluster.triton.repository.write_atomically", fail)
    with pytest.raises(ModelError, match=r"gain cannot be written \(No space left on device\)"):
        write_repository(gain, tmp_path, overwrite=True)
    assert not (tmp_path / "gain" / "config.pbtxt").exists()
