"""TensorRT engine files are described and checked before any of their code runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bsmamba2 import DeviceError, ModelError
from bsmamba2.devices import nvidia
from bsmamba2.devices.nvidia import Driver
from bsmamba2.files.hashing import file_sha256
from bsmamba2.formats.engine_file import BuildKey, EngineFile, description_path, read_engine
from support.files import names
from support.models import MANIFEST, open_engine

KEY = BuildKey("0" * 64, "tensorrt-rtx", "1.0", ("sm89",), batch=1, frames=100)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of an engine that this user built."""
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "voice.engine"
    path.write_bytes(b"an engine")
    EngineFile(path, MANIFEST, KEY, file_sha256(path)).write_description()
    return path


def change_description(path: Path, change: Callable[[Any], Any]) -> None:
    description = description_path(path)
    content = json.loads(description.read_text())
    description.write_text(json.dumps(change(content)))


def without(*keys: str) -> Callable[[Any], Any]:
    def change(content: Any) -> Any:
        *outer, last = keys
        part = content
        for key in outer:
            part = part[key]
        del part[last]
        return content

    return change


def test_a_written_description_is_read_back_and_trusted(engine: Path) -> None:
    file = read_engine(engine)
    assert (file.key, file.manifest.name) == (KEY, MANIFEST.name)
    file.require_trust()
    assert names(engine.parent) == ["cache", "voice.engine", "voice.engine.json"]


def test_an_engine_of_another_user_needs_explicit_trust(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "other"))
    with pytest.raises(ModelError, match="was not built here"):
        read_engine(engine).require_trust()
    read_engine(engine).require_trust(trust_engine=True)


def trust_record(engine: Path) -> Path:
    (path,) = (engine.parent / "cache" / "engines").iterdir()
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_a_trust_record_that_others_can_write_is_ignored_and_the_error_says_so(
    engine: Path,
) -> None:
    trust_record(engine).parent.chmod(0o777)
    with pytest.raises(ModelError, match=r"engines is ignored, because other users can write it"):
        read_engine(engine).require_trust()


def test_the_trust_record_of_another_engine_is_not_enough(engine: Path, tmp_path: Path) -> None:
    other = tmp_path / "foreign.engine"
    other.write_bytes(b"foreign")
    sha256 = file_sha256(other)
    EngineFile(other, MANIFEST, KEY, sha256).write_description()
    records = engine.parent / "cache" / "engines"
    (records / f"{sha256}.json").unlink()
    trust_record(engine).rename(records / f"{sha256}.json")
    with pytest.raises(ModelError, match="was not built here"):
        read_engine(other).require_trust()


def test_trust_gives_the_bytes_that_were_checked(engine: Path) -> None:
    assert read_engine(engine).require_trust() == b"an engine"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes")
def test_a_pipe_is_neither_an_engine_nor_its_description(engine: Path) -> None:
    file = read_engine(engine)
    for path in (engine, description_path(engine)):
        path.unlink()
        os.mkfifo(path)
    with pytest.raises(ModelError, match="it is a named pipe"):
        file.require_trust(trust_engine=True)
    with pytest.raises(ModelError, match="it is a named pipe"):
        read_engine(engine)


def test_a_changed_engine_is_refused_even_with_trust(engine: Path) -> None:
    engine.write_bytes(b"another")
    with pytest.raises(ModelError, match="it was damaged or replaced"):
        read_engine(engine).require_trust(trust_engine=True)


@pytest.mark.parametrize(
    ("changes", "matches"),
    [
        ({"version": "2.0"}, True),
        ({"model_sha256": "1" * 64}, True),
        ({"frames": 200}, False),
        ({"gpus": ("sm120",)}, False),
        ({"target": "tensorrt-plugin"}, False),
    ],
)
def test_a_request_is_the_key_without_model_bytes_and_version(
    changes: dict[str, Any], matches: bool
) -> None:
    assert replace(KEY, **changes).matches_request(KEY) == matches


@pytest.mark.parametrize(
    "keys",
    [("manifest",), ("key",), ("sha256",), ("key", "frames"), ("key", "gpus"), ("manifest", "io")],
)
def test_an_incomplete_description_names_the_missing_field_and_the_fix(
    engine: Path, keys: tuple[str, ...]
) -> None:
    change_description(engine, without(*keys))
    with pytest.raises(ModelError, match=f"damaged, it has no '{keys[-1]}': .* again"):
        read_engine(engine)


@pytest.mark.parametrize("content", [[], "x", None, {"manifest": []}, {"manifest": {"format": 9}}])
def test_a_description_of_another_form_is_refused_in_one_sentence(
    engine: Path, content: Any
) -> None:
    change_description(engine, lambda _: content)
    with pytest.raises(ModelError) as error:
        read_engine(engine)
    assert "Error(" not in str(error.value)


@pytest.mark.parametrize(("key", "value"), [("frames", "x"), ("backend", "other"), ("gpus", 1)])
def test_a_description_with_a_wrong_value_is_refused_in_one_sentence(
    engine: Path, key: str, value: Any
) -> None:
    change_description(engine, lambda content: content | {"key": content["key"] | {key: value}})
    with pytest.raises(ModelError, match="voice.engine.json is damaged: copy it again"):
        read_engine(engine)


def test_a_missing_engine_is_named(engine: Path) -> None:
    engine.unlink()
    with pytest.raises(ModelError, match="there is no model file .*voice.engine': check its name"):
        open_engine(engine)


@pytest.mark.parametrize("driver", [None, Driver(), Driver(fault="no device")])
def test_an_engine_without_a_gpu_never_suggests_the_cpu(
    engine: Path, monkeypatch: pytest.MonkeyPatch, driver: Driver | None
) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: driver)
    with pytest.raises(DeviceError, match="model that the engine was built") as error:
        open_engine(engine)
    assert "device=" not in str(error.value)
