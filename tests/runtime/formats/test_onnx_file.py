"""An ONNX file's manifest and external data are checked before anything loads the file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bsmamba2 import MissingExtra, ModelError, Separator
from bsmamba2.devices import nvidia
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.ort_package import import_onnxruntime
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models import registry
from bsmamba2.models.graph import shipped_graphs
from support.models import MANIFEST, gain_model, open_engine

CARD = nvidia.Card("mock", (8, 9), 8 << 30)
Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(content)``: the path of a model with this content."""

    def to_path(content: bytes) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return path

    return to_path


def test_an_exported_model_separates(write: Write) -> None:
    audio = np.random.default_rng(0).normal(size=(2, 500)).astype(np.float32) / 4
    stems = Separator(write(gain_model()), "cpu")(audio, 44100)
    np.testing.assert_allclose(stems["vocals"], audio / 2, atol=1e-6)


def test_the_manifest_and_the_missing_weights_are_read(write: Write) -> None:
    file = read_onnx(write(gain_model(location="weights")))
    assert (file.manifest, file.missing_weights) == (MANIFEST, ("factor",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"hello, I am not a model", "is not an ONNX file"),
        (gain_model(manifest=None), "is not a model of bsmamba2"),
        (gain_model(location="../secret"), "data outside its folder"),
        (gain_model(location="/etc/passwd"), "data outside its folder"),
        (gain_model(location="a\\..\\b"), "data outside its folder"),
        (gain_model(location="weights"), "has no weights: give a checkpoint"),
        (gain_model()[:-40], "is not an ONNX file|not JSON"),
    ],
)
def test_an_unusable_model_is_refused_with_the_reason(
    write: Write, content: bytes, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        open_engine(write(content), "cpu")


def test_onnxruntime_refuses_external_data_of_attributes(write: Write, tmp_path: Path) -> None:
    (tmp_path.parent / "secret").write_bytes(bytes(4))
    model = onnx.load_from_string(gain_model())
    factor = model.graph.initializer[0]
    factor.ClearField("raw_data")
    factor.data_location = TensorProto.EXTERNAL
    factor.external_data.add(key="location", value="../secret")
    constant = helper.make_node("Constant", [], ["factor"], value=factor)
    del model.graph.initializer[0]
    model.graph.node.insert(0, constant)
    with pytest.raises(ModelError, match="ONNX Runtime refuses"):
        open_engine(write(model.SerializeToString()), "cpu")


@settings(max_examples=300)
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


def test_a_graph_that_onnxruntime_refuses_is_one_sentence(write: Write) -> None:
    broken = onnx.load_from_string(gain_model())
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="ONNX Runtime refuses model.onnx: ") as caught:
        open_engine(write(broken.SerializeToString()), "cpu")
    assert "\n" not in str(caught.value)


def test_an_unknown_model_gives_the_way_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "shipped", dict)  # as in a copy without weights
    for model in (None, "voice"):
        with pytest.raises(ModelError, match="name one with --model .*bsmamba2 models fetch"):
            Separator(model)
    with pytest.raises(ModelError, match=r"'bs_mamba2_voclas'; did you mean bs_mamba2_vocals\?"):
        Separator("bs_mamba2_voclas")
    with pytest.raises(ModelError, match="there is no model file .*none.onnx': check its name"):
        Separator(tmp_path / "none.onnx")
    (tmp_path / "model.tflite").touch()
    with pytest.raises(ModelError, match="must be a file in one of .onnx"):
        Separator(tmp_path / "model.tflite")


@pytest.mark.parametrize(
    ("installed", "message"),
    [([], "no ONNX Runtime"), (["onnxruntime", "onnxruntime-gpu"], "overwrite each other")],
)
def test_no_onnxruntime_or_two_of_them_is_an_error_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, installed: list[str], message: str
) -> None:
    monkeypatch.setattr(
        "bsmamba2.engines.ort_package.installed_version", lambda name: name in installed
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=message) as caught:
        import_onnxruntime()
    assert 'pip install "bsmamba2[' in str(caught.value)


def test_threads_can_share_an_engine(write: Write) -> None:
    engine = OrtEngine(read_onnx(write(gain_model())))
    chunks = [np.full((2, 64), k, np.float32) for k in range(32)]
    with ThreadPoolExecutor(4) as pool:
        for chunk, stems in zip(chunks, pool.map(engine.run, chunks), strict=True):
            np.testing.assert_allclose(stems[0], chunk / 2, rtol=1e-5)


def test_the_shipped_graphs_have_no_weights_and_no_check() -> None:
    assert {graph.path.stem for graph in shipped_graphs()} >= {"paper", "tiny"}
    assert all(graph.missing_weights and not graph.manifest.check for graph in shipped_graphs())


@pytest.mark.parametrize(
    ("leftover", "message"),
    [
        ({}, "is damaged, its files are missing; run: pip uninstall -y"),
        (
            {"InferenceSession": object, "__version__": "1.20.0"},
            'ONNX Runtime 1.20.0 is too old; run: pip install -U "onnxruntime',
        ),
    ],
)
def test_a_damaged_or_old_onnxruntime_is_an_error_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, leftover: dict[str, Any], message: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(**leftover))
    with pytest.raises(MissingExtra, match=message):
        import_onnxruntime()


@pytest.mark.parametrize(("cards", "extra"), [((), "cpu"), ((CARD,), "gpu")])
def test_the_installation_command_fits_this_machine(
    monkeypatch: pytest.MonkeyPatch, cards: tuple[nvidia.Card, ...], extra: str
) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: nvidia.Driver(cards))
    monkeypatch.setattr("bsmamba2.engines.ort_package.installed_version", lambda name: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=f'run: pip install "bsmamba2.{extra}."$'):
        import_onnxruntime()
