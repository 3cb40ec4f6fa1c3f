"""An ONNX file's manifest and external data are checked before anything loads the file."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bsmamba2 import ModelError
from bsmamba2.files.hashing import file_sha256
from bsmamba2.formats.onnx_file import initialisers, read_onnx
from bsmamba2.formats.protobuf import MappedFile
from support.fixtures import WriteOnnx
from support.models import MANIFEST, gain_model


def test_the_manifest_and_the_missing_weights_are_read(write_onnx: WriteOnnx) -> None:
    file = read_onnx(write_onnx(gain_model(location="weights")))
    assert (file.manifest, file.missing_weights, file.data) == (MANIFEST, ("factor",), ())


def test_the_files_that_hold_weights_are_listed(write_onnx: WriteOnnx) -> None:
    path = write_onnx(gain_model(location="parts/model.data"))
    file = read_onnx(path)
    assert (file.missing_weights, file.data) == ((), (path.parent / "parts" / "model.data",))


def test_initialisers_are_found_with_their_bytes(write_onnx: WriteOnnx) -> None:
    with (
        write_onnx(gain_model()).open("rb") as file,
        MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        stored = {name: data[place.start : place.stop] for name, place in initialisers(data)}
    assert stored == {"factor": np.float32(0.5).tobytes(), "one": np.int64(1).tobytes()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"hello, I am not a model", "is not an ONNX file"),
        (gain_model(manifest=None), "is not a model of bsmamba2"),
        (gain_model(location="../secret"), "data outside its folder"),
        (gain_model(location="/etc/passwd"), "data outside its folder"),
        (gain_model(location="a\\..\\b"), "data outside its folder"),
        (gain_model(location="weights\0.data"), "data outside its folder"),
        (gain_model(location="a\x1b[31m"), "data outside its folder"),
        (gain_model(location="."), "data outside its folder"),
        (gain_model()[:-40], "is not an ONNX file|not JSON"),
    ],
)
def test_an_unusable_model_is_refused_with_the_reason(
    write_onnx: WriteOnnx, content: bytes, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        read_onnx(write_onnx(content))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes")
def test_a_pipe_is_neither_a_model_nor_its_weights(write_onnx: WriteOnnx, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ModelError, match="it is a named pipe"):
        read_onnx(tmp_path / "pipe.onnx")
    file = read_onnx(write_onnx(gain_model(location="pipe.data")))
    os.mkfifo(file.data[0])
    with pytest.raises(OSError, match="it is a named pipe"):
        file_sha256(file.data[0])


@settings(max_examples=100)
@given(data=st.data())
def test_a_mutated_model_is_read_or_refused_in_a_sentence(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(gain_model())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.onnx"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        read_onnx(path)
    except ModelError as error:
        assert str(path) in str(error) or "manifest" in str(error)


@pytest.mark.parametrize("content", [b"\x08\0" * 2_000_000, b"\x12\0" * 2_000_000])
def test_a_file_of_too_many_fields_is_refused(write_onnx: WriteOnnx, content: bytes) -> None:
    with pytest.raises(ModelError, match="is not an ONNX file"):
        read_onnx(write_onnx(content))
