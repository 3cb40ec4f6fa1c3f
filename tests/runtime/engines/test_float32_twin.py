"""A model of reduced precision contains everything that its float32 twin needs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from bsmamba2 import ModelError
from bsmamba2.devices.device import CPU
from bsmamba2.engines.float32_twin import ReducedPrecisionOrtEngine, widened
from bsmamba2.engines.protocols import Engine
from bsmamba2.formats.onnx_file import read_onnx
from support.engines import Stubs
from support.fixtures import WriteOnnx
from support.models import MANIFEST, gain_model

VALUE = {
    "fp32": np.float32(0.1).tobytes(),
    "fp16": np.float16(0.1).tobytes(),
    "bf16": np.float32(0.1).tobytes()[2:],  # the upper half, in little-endian order
}
TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def with_weight(precision: str, content: bytes, shape: tuple[int, ...] = (1,)) -> bytes:
    """Returns a model of that precision whose manifest lists the weight ``factor``."""
    manifest = MANIFEST.replace(precision=precision, initialisers={"factor": shape})
    model = onnx.load_from_string(gain_model(manifest))
    factor = model.graph.initializer[0]
    factor.raw_data, factor.data_type = content, TYPES[precision]
    result: bytes = model.SerializeToString()
    return result


@pytest.mark.parametrize(("precision", "digits"), [("fp32", 24), ("fp16", 11), ("bf16", 7)])
def test_weights_are_widened_to_float32(write_onnx: WriteOnnx, precision: str, digits: int) -> None:
    weights = widened(read_onnx(write_onnx(with_weight(precision, VALUE[precision]))))
    assert weights["factor"].dtype == np.float32
    assert weights["factor"].shape == (1,)
    assert weights["factor"][0] == pytest.approx(0.1, rel=2.0**-digits)


def test_a_weight_with_another_length_than_in_the_manifest_is_refused(
    write_onnx: WriteOnnx,
) -> None:
    path = write_onnx(with_weight("fp16", VALUE["fp16"], shape=(3,)))
    with pytest.raises(
        ModelError, match="not have the length that the manifest states: export the"
    ):
        widened(read_onnx(path))


def test_a_weight_that_is_not_in_the_file_is_named(write_onnx: WriteOnnx) -> None:
    manifest = MANIFEST.replace(initialisers={"other": (1,)})
    with pytest.raises(ModelError, match="model.onnx does not contain other, .*export it again"):
        widened(read_onnx(write_onnx(gain_model(manifest))))


def test_the_twin_is_loaded_once_and_only_when_it_is_needed(
    write_onnx: WriteOnnx, stub: Stubs
) -> None:
    loaded: list[str] = []

    def load() -> Engine:
        loaded.append("twin")
        return stub.half()

    manifest = MANIFEST.replace(initialisers={"factor": (1,)})
    engine = ReducedPrecisionOrtEngine(read_onnx(write_onnx(gain_model(manifest))), CPU, load)
    assert loaded == []
    assert engine.in_float32() is engine.in_float32()
    assert loaded == ["twin"]
