"""A TensorRT engine on the disk: what is read of it before anything of it is run."""

from __future__ import annotations

import json

import pytest

from bsmamba2 import DeviceError, ModelError
from bsmamba2.devices import nvidia
from bsmamba2.devices.nvidia import Driver
from bsmamba2.files.hashing import file_sha256
from bsmamba2.formats.engine_file import BuildKey, EngineFile, description_path, read_engine
from support.models import MANIFEST, open_engine

KEY = BuildKey("0" * 64, "tensorrt-rtx", "1.0", ("sm89",), batch=1, frames=100)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """The path of an engine that this user built."""
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "voice.engine"
    path.write_bytes(b"an engine")
    EngineFile(path, MANIFEST, KEY, file_sha256(path)).write_description()
    return path


def describe_anew(path, change):
    beside = description_path(path)
    content = json.loads(beside.read_text())
    beside.write_text(json.dumps(change(content)))


def without(*keys):
    def change(content):
        *outer, last = keys
        part = content
        for key in outer:
            part = part[key]
        del part[last]
        return content

    return change


def test_what_is_written_is_read_and_trusted(engine):
    found = read_engine(engine)
    assert (found.key, found.manifest.name) == (KEY, MANIFEST.name)
    found.require_trust()


@pytest.mark.parametrize(
    "keys",
    [("manifest",), ("key",), ("sha256",), ("key", "frames"), ("key", "gpus"), ("manifest", "io")],
)
def test_a_description_that_lacks_something_says_what_and_how_to_mend_it(engine, keys):
    describe_anew(engine, without(*keys))
    with pytest.raises(ModelError, match=f"damaged, it has no '{keys[-1]}': .* again"):
        read_engine(engine)


@pytest.mark.parametrize("content", [[], "x", None, {"manifest": []}, {"manifest": {"format": 9}}])
def test_a_description_of_anything_else_is_one_sentence(engine, content):
    describe_anew(engine, lambda _: content)
    with pytest.raises(ModelError) as raised:
        read_engine(engine)
    assert "Error(" not in str(raised.value)


@pytest.mark.parametrize(("key", "value"), [("frames", "x"), ("backend", "other"), ("gpus", 1)])
def test_a_description_with_a_wrong_value_is_one_sentence(engine, key, value):
    describe_anew(engine, lambda content: content | {"key": content["key"] | {key: value}})
    with pytest.raises(ModelError, match="voice.engine.json is damaged: copy it again"):
        read_engine(engine)


def test_an_engine_that_is_gone_is_told_by_its_name(engine):
    engine.unlink()
    with pytest.raises(ModelError, match="there is no model file .*voice.engine': check its name"):
        open_engine(engine)


@pytest.mark.parametrize("driver", [None, Driver(), Driver(fault="no device")])
def test_an_engine_without_a_card_is_never_told_to_use_the_cpu(engine, monkeypatch, driver):
    monkeypatch.setattr(nvidia, "driver", lambda: driver)
    with pytest.raises(DeviceError, match="or give the model that the engine was built of") as told:
        open_engine(engine)
    assert "--device cpu" not in str(told.value)
