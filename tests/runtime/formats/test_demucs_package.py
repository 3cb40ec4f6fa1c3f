"""What Demucs stores with its weights is read without Demucs and without running anything."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import ModelError
from bsmamba2.formats.demucs_package import (
    HT_DEMUCS,
    Bag,
    bag_of,
    find_member,
    metadata_of,
    package_of,
    require_named_hash,
)
from bsmamba2.formats.pickle_reader import read_torch_file

STEMS = ["drums", "bass", "other", "vocals"]
OPTIONS: dict[str, Any] = {
    "sources": STEMS,
    "samplerate": 44100,
    "segment": Fraction(39, 5),
    "channels": 48,
    "multi_freqs": [],
    "t_dropout": 0.02,
}
STORED = {
    "klass": HT_DEMUCS,
    "args": "[]",
    "kwargs": json.dumps(
        OPTIONS | {"segment": {"_type": "fraction", "numerator": 39, "denominator": 5}}
    ),
}
FILE = Path("955717e8-8726e21a.th")


@pytest.fixture
def network_class(monkeypatch: pytest.MonkeyPatch) -> type:
    """Returns a class that is pickled under the name of HT Demucs, and never imported again."""
    kind = type("HTDemucs", (), {"__module__": "demucs.htdemucs"})
    module = ModuleType("demucs.htdemucs")
    vars(module)["HTDemucs"] = kind
    monkeypatch.setitem(sys.modules, "demucs", ModuleType("demucs"))
    monkeypatch.setitem(sys.modules, "demucs.htdemucs", module)
    return kind


def saved(path: Path, kind: type, **changes: Any) -> Any:
    """Writes a package as Demucs does, and reads it."""
    package = {"klass": kind, "args": (), "kwargs": OPTIONS, "training_args": {"lr": 1e-4}}
    package["state"] = {"a": torch.ones(2, 3, dtype=torch.half)}
    torch.save(package | changes, path)
    sys.modules.pop("demucs.htdemucs")
    return read_torch_file(path.read_bytes(), path)


def test_a_package_is_read_without_its_class(tmp_path: Path, network_class: type) -> None:
    document = saved(tmp_path / FILE, network_class)
    assert metadata_of(document, FILE) == STORED
    assert document["state"]["a"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert "demucs.htdemucs" not in sys.modules


def test_stems_as_an_argument_are_read_too(tmp_path: Path, network_class: type) -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "sources"}
    document = saved(tmp_path / FILE, network_class, args=(STEMS,), kwargs=options)
    package = package_of(metadata_of(document, FILE), FILE)
    assert package is not None
    assert package.stems == tuple(STEMS)


def test_the_metadata_give_the_options_and_the_exact_chunk() -> None:
    package = package_of(STORED, FILE)
    assert package is not None
    assert package.options == OPTIONS
    assert (package.stems, package.sample_rate, package.chunk) == (tuple(STEMS), 44100, 343980)


@pytest.mark.parametrize("document", [None, [], {}, {"klass": 1}, {"state_dict": {}}])
def test_other_files_have_no_such_metadata(document: Any) -> None:
    assert metadata_of(document, FILE) == {}


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}, {"klass": HT_DEMUCS}])
def test_other_metadata_are_no_package(metadata: dict[str, str]) -> None:
    assert package_of(metadata, FILE) is None


@pytest.mark.parametrize("kind", ["demucs.hdemucs.HDemucs", "demucs.demucs.Demucs", "os.system"])
def test_the_error_names_the_class_of_another_network(kind: str) -> None:
    with pytest.raises(ModelError, match=f"of the class {kind}: of Demucs' networks only HT"):
        package_of(STORED | {"klass": kind}, FILE)


def test_quantised_files_are_refused(tmp_path: Path, network_class: type) -> None:
    document = saved(tmp_path / FILE, network_class, state={"__quantized": True})
    with pytest.raises(ModelError, match="quantised"):
        metadata_of(document, FILE)
    with pytest.raises(ModelError, match="quantised"):
        package_of(STORED | {"structure": "{}"}, FILE)


@pytest.mark.parametrize("value", [object(), {1, 2}, torch.ones(1)], ids=["object", "set", "array"])
def test_options_that_are_not_plain_values_are_damage(value: Any) -> None:
    document = {"klass": "x", "kwargs": OPTIONS | {"channels": value}, "state": {}}
    with pytest.raises(ModelError, match="damaged"):
        metadata_of(document, FILE)


@pytest.mark.parametrize(
    "change",
    [
        {"sources": "drums"},
        {"sources": []},
        {"sources": ["a"] * 17},
        {"sources": [1]},
        {"samplerate": 0},
        {"samplerate": "a"},
        {"segment": "a" * 1000},
        {"segment": 1e9},
        {"segment": -1},
        {"segment": float("nan")},
        {"segment": {"_type": "fraction", "numerator": 1, "denominator": 0}},
        {"segment": {"_type": "fraction", "numerator": 1.5, "denominator": 2}},
        {"segment": {"_type": "fraction"}},
    ],
)
def test_options_out_of_range_are_damage(change: dict[str, Any]) -> None:
    options = json.dumps(json.loads(STORED["kwargs"]) | change)
    with pytest.raises(ModelError, match="damaged"):
        package_of(STORED | {"kwargs": options}, FILE)


@pytest.mark.parametrize(
    "change", [{"kwargs": "{"}, {"kwargs": "[]"}, {"args": "[1, 2]"}, {"args": "3"}]
)
def test_metadata_that_are_not_the_json_are_damage(change: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="damaged"):
        package_of(STORED | change, FILE)


@given(st.text())
def test_any_text_is_a_package_or_damage(text: str) -> None:
    try:
        assert package_of(STORED | {"kwargs": text}, FILE) is None
    except ModelError as error:
        assert "damaged" in str(error)


TUNED = {"models": ["f7e0c4bc", "d12395a8"], "weights": [[1.0, 0.0], [0.0, 1.0]]}


def test_in_a_bag_with_the_identity_each_stem_has_its_own_model() -> None:
    bag = bag_of(TUNED, FILE)
    assert [bag.shares(stem) for stem in range(2)] == [{"f7e0c4bc": 1.0}, {"d12395a8": 1.0}]


def test_a_bag_without_weights_is_the_mean() -> None:
    assert bag_of({"models": ["a", "b"]}, FILE).shares(3) == {"a": 0.5, "b": 0.5}


def test_weights_of_a_bag_become_shares() -> None:
    bag = bag_of({"models": ["a", "b"], "weights": [[1, 3], [3, 0]], "segment": 5}, FILE)
    assert [bag.shares(stem) for stem in range(2)] == [{"a": 0.25, "b": 0.75}, {"a": 1.0}]
    assert bag == Bag(("a", "b"), ((1.0, 3.0), (3.0, 0.0)), 5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": None}, "models in .* must be 1 to 16"),
        ({"models": []}, "models in .* must be 1 to 16"),
        ({"models": ["../a", "b"]}, "models in .* must be 1 to 16"),
        ({"models": ["a", "a"]}, "models in .* must be 1 to 16 different"),
        ({"models": [955717, 3]}, "models in .* must be 1 to 16"),
        ({"weights": [[1.0, 0.0]]}, "weights in .* must be 2 rows"),
        ({"weights": [[1.0], [0.0, 1.0]]}, "weights in .* must be 2 rows"),
        ({"weights": [[1.0, 0.0], [1.0, 0.0]]}, "weights in .* must be 2 rows"),
        ({"weights": [[1.0, -1.0], [0.0, 1.0]]}, "weights in .* must be 2 rows"),
        ({"weights": [[1.0, "a"], [0.0, 1.0]]}, "weights in .* must be 2 rows"),
        ({"weights": [[], []]}, "weights in .* must be 2 rows"),
        ({"segment": 0}, "segment in .* must be a number of seconds above 0"),
        ({"segment": "7.8"}, "segment in .* must be a number of seconds above 0"),
    ],
)
def test_the_error_names_what_is_wrong_with_a_bag(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        bag_of(TUNED | change, FILE)


@pytest.mark.parametrize("name", ["955717e8.safetensors", "955717e8.th", "955717e8-8726e21a.th"])
def test_a_member_of_a_bag_is_found_by_its_signature(tmp_path: Path, name: str) -> None:
    for file in (name, "955717e8-8726e21a.txt", "x955717e8.th", "04573f0d-f3cf25b2.th"):
        (tmp_path / file).touch()
    assert find_member(tmp_path, "955717e8") == tmp_path / name


@pytest.mark.parametrize("names", [[], ["a-00000000.th", "a-11111111.th"]])
def test_no_member_and_several_members_are_errors(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match=f"got {', '.join(names) or 'none'}: put the file there"):
        find_member(tmp_path, "a")


def test_a_file_must_have_the_hash_that_its_name_states() -> None:
    require_named_hash(FILE, "8726e21a" + 56 * "0")
    require_named_hash(Path("htdemucs.th"), 64 * "0")
    with pytest.raises(ModelError, match="must begin with 8726e21a, as its name states; got 0000"):
        require_named_hash(FILE, 64 * "0")
