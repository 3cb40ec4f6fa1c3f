"""Ensembles and chains as configurations, in Python and in JSON files from anyone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import Chain, Ensemble, ModelError
from bsmamba2.models.combination import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_MODELS,
    is_named,
    is_source,
    read_combination,
)
from support.engines import Stubs

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def write(folder: Path, content: object, name: str = "both.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def test_an_ensemble_in_a_file_is_the_one_in_python(tmp_path: Path) -> None:
    content = {"ensemble": ["a", "b"], "weights": [2, 1.5], "stems": [["vocals"], ["drums"]]}
    expected = Ensemble(["a", "b"], weights=[2, 1.5], stems=[("vocals",), ("drums",)], name="both")
    assert read_combination(write(tmp_path, content)) == expected


def test_a_chain_in_a_file_is_the_one_in_python(tmp_path: Path) -> None:
    content = {"chain": ["a", {"ensemble": ["b", "c"], "method": "median"}], "stem": "drums"}
    inner = Ensemble(["b", "c"], "median")
    found = read_combination(write(tmp_path, content, "karaoke.json"))
    assert found == Chain("a", inner, stem="drums", name="karaoke")


def test_paths_are_relative_to_the_file_and_names_are_not_paths(tmp_path: Path) -> None:
    names = ["small", "ep_317_sdr_12.9755", "a.ckpt", "sub/b", "inner.json", "/c.onnx"]
    found = read_combination(write(tmp_path, {"ensemble": names}))
    paths = [tmp_path / "a.ckpt", tmp_path / "sub/b", tmp_path / "inner.json", Path("/c.onnx")]
    assert found.models == ("small", "ep_317_sdr_12.9755", *paths)


def test_lists_are_kept_as_tuples_so_that_a_configuration_cannot_change() -> None:
    ensemble = Ensemble(["a", "b"], weights=[1, 2], stems=[["x"], ["y"]])
    assert hash(ensemble) == hash(Ensemble(("a", "b"), weights=(1, 2), stems=(("x",), ("y",))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": []}, "models must be 1 to 16 models; got 0"),
        ({"models": ["a"] * (MAX_MODELS + 1)}, "models must be 1 to 16 models; got 17"),
        ({"models": "a"}, "models must be a list of 1 to 16 models; got 'a'"),
        ({"models": ["a", 3]}, "a model must be a name, a path, an engine.*; got 3"),
        ({"models": ["a", ""]}, "a model must be a name, a path, an engine.*; got ''"),
        ({"method": "mean"}, "method must be one of average, median, maximum, minimum; got 'mean'"),
        ({"weights": [1]}, r"weights must be a list of 2 numbers, one per model; got \[1\]"),
        ({"weights": [1, 0]}, "each weight must be above 0 and up to 1e\\+06; got 0"),
        ({"weights": [1, float("nan")]}, "each weight must be above 0.*; got nan"),
        ({"weights": [1, True]}, "each weight must be above 0.*; got True"),
        ({"weights": [1, 10**400]}, "each weight must be above 0"),
        ({"weights": [1, 1], "method": "median"}, "method must be average if there are weights"),
        ({"stems": [["vocals"]]}, "stems must be a list of 2 lists of stems, one list per model"),
        ({"stems": [["vocals"], []]}, "stems must be a list of 2 lists of stems"),
        ({"stems": [["vocals"], "drums"]}, "stems must be a list of 2 lists of stems"),
        ({"name": 3}, "name must be text; got 3"),
    ],
)
def test_an_ensemble_states_what_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Ensemble(**({"models": ["a", "b"]} | arguments))


def test_a_chain_states_what_is_wrong() -> None:
    with pytest.raises(ModelError, match="stem must be a stem of the first model; got ''"):
        Chain("a", "b", stem="")
    with pytest.raises(ModelError, match="a model must be a name, a path, an engine.*; got None"):
        Chain("a", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (3, 'must be an object with "ensemble" or "chain", a list of models; got 3'),
        ({}, r'must be an object with "ensemble" or "chain", a list of models; got \{\}'),
        ({"ensemble": ["a"], "chain": ["a", "b"]}, 'an object with "ensemble" or "chain"'),
        ({"chain": ["a"]}, "chain must be a list of 2 models; got 1"),
        ({"chain": "ab"}, "chain must be a list of models; got 'ab'"),
        ({"chain": ["a", "b"], "method": "median"}, "a field of chain must be one of chain, stem"),
        ({"ensemble": ["a"], "name": "x"}, "a field of ensemble must be one of .*; got 'name'"),
        ({"ensemble": ["a", None]}, 'an object with "ensemble" or "chain"'),
    ],
)
def test_a_file_states_what_is_wrong_and_its_name(
    tmp_path: Path, content: object, message: str
) -> None:
    with pytest.raises(ModelError, match=rf"both\.json: .*{message}"):
        read_combination(write(tmp_path, content))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ModelError, match="named pipe"):
        read_combination(tmp_path / "pipe.json")


def test_a_file_that_is_missing_not_json_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.json cannot be read .*: check its name"):
        read_combination(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("[" * 50_000)
    with pytest.raises(ModelError, match=r"text\.json is not JSON"):
        read_combination(tmp_path / "text.json")
    with pytest.raises(ModelError, match="size of .* must be at most 64 KiB"):
        read_combination(write(tmp_path, "x" * MAX_BYTES))


def test_nesting_is_limited(tmp_path: Path) -> None:
    content: object = "a"
    for _ in range(MAX_DEPTH + 1):
        content = {"ensemble": [content]}
    with pytest.raises(ModelError, match="combinations must be nested up to 8 deep"):
        read_combination(write(tmp_path, content))


@pytest.mark.parametrize("depth", [100, 400, 900, 1500, 5000])
@pytest.mark.parametrize("field", ["ensemble", "weights", "stems"])
def test_deep_lists_are_refused_in_a_sentence(tmp_path: Path, field: str, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    fields = {"ensemble": '["a"]'} | {field: deep}
    text = ", ".join(f'"{name}": {value}' for name, value in fields.items())
    (tmp_path / "deep.json").write_text("{" + text + "}")
    with pytest.raises(ModelError, match=r"deep\.json"):
        read_combination(tmp_path / "deep.json")


@pytest.mark.parametrize("name", ["\0.json", "\ud800.json", "x" * 300 + ".json"])
def test_a_path_that_cannot_exist_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be read .*: check its name"):
        read_combination(tmp_path / name)


@given(JSON, st.sampled_from(["models", "weights", "stems", "method", "stem", "chain"]))
def test_any_value_is_accepted_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, value: Any, field: str
) -> None:
    kind = {"chain": ["a", "b"]} if field in ("chain", "stem") else {"ensemble": ["a", "b"]}
    field = "ensemble" if field == "models" else field
    try:
        read_combination(write(tmp_path_factory.getbasetemp(), kind | {field: value}))
    except ModelError as error:
        assert "must be" in str(error)


def test_only_models_with_names_can_be_loaded_again(stub: Stubs) -> None:
    assert is_named(Chain("a", Ensemble([Path("b"), "c"])))
    assert not is_named(Chain("a", Ensemble([stub.half(), "c"])))


@pytest.mark.parametrize("value", [3, None, type, [], b"small"])
def test_other_values_stand_for_no_model(value: object) -> None:
    assert not is_source(value)
