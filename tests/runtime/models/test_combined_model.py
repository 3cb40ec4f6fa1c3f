"""Opening combinations: files, bags and nested ones, and the manifest of the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bsmamba2 import Chain, Ensemble, Manifest, ModelError
from bsmamba2.models import registry
from bsmamba2.models.combined_model import CombinedManifest, CombinedModel, combine, leaves
from bsmamba2.models.registry import Member
from support.engines import SIZES, StubEngine, Stubs, identity

FOUR = ("drums", "bass", "other", "vocals")


def opened(name: Any) -> StubEngine:
    """A model of four stems, called like its file."""
    stems = {"stems": FOUR, "residual": "residual"}
    return StubEngine(identity, name=Path(name).stem, **stems)


def combined(source: Any) -> CombinedModel[StubEngine]:
    model = combine(source, opened)
    assert isinstance(model, CombinedModel)
    return model


def names(model: Any) -> list[str]:
    return [leaf.manifest.name for leaf in leaves(model)]


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_single_model_stays_what_it_is(stub: Stubs) -> None:
    engine = stub.half()
    assert combine("voice", lambda name: engine) is engine
    assert names(engine) == [engine.manifest.name]


def test_files_name_files_relative_to_themselves(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub/inner.json", {"ensemble": ["x.ckpt", "y"]})
    outer = combined(write(tmp_path / "outer.json", {"chain": ["sub/inner.json", "z"]}))
    assert names(outer) == ["x", "y", "z"]
    assert outer.combination.models[0] == tmp_path / "sub/inner.json"
    assert outer.manifest.name == "outer"


def test_a_published_model_of_several_files_uses_each_for_its_stems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = tuple(Member(Path(f"{name}.th"), (name,)) for name in FOUR)
    monkeypatch.setattr(registry, "find_members", lambda name: files if name == "bag" else ())
    bag = combined("bag")
    assert (bag.manifest.name, bag.manifest.stems) == ("bag", FOUR)
    assert bag.stems.sources == (((0, 0),), ((1, 1),), ((2, 2),), ((3, 3),))


def write_bag(folder: Path, text: str) -> Path:
    for name in ("aaaa.safetensors", "bbbb-0123abcd.th"):
        (folder / name).touch()
    (folder / "bag.yaml").write_text(text)
    return folder / "bag.yaml"


def test_a_bag_of_demucs_uses_each_model_for_its_stems(tmp_path: Path) -> None:
    weights = "[[1., 0., 1., 0.], [0., 1., 1., 1.]]"
    bag = combined(write_bag(tmp_path, f"models: [aaaa, bbbb]\nweights: {weights}"))
    assert (bag.manifest.name, bag.manifest.stems) == ("bag", ("drums", "other", "bass", "vocals"))
    assert names(bag) == ["aaaa", "bbbb-0123abcd"]
    assert bag.stems.sources == (((0, 0),), ((0, 2), (1, 2)), ((1, 1),), ((1, 3),))


def test_a_bag_can_be_a_part_of_a_combination(tmp_path: Path) -> None:
    write_bag(tmp_path, "models: [aaaa, bbbb]")
    path = write(tmp_path / "chain.json", {"chain": ["bag.yaml", "x"], "stem": "drums"})
    assert names(combined(path)) == [
        "aaaa",
        "bbbb-0123abcd",
        "x",
    ]


def test_a_file_that_names_itself_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "loop.json", {"ensemble": ["loop.json"]})
    with pytest.raises(ModelError, match="combinations must be nested up to 8 deep; got 'more'"):
        combine(path, opened)


def test_the_number_of_models_is_limited_over_all_levels() -> None:
    with pytest.raises(ModelError, match="a combination must have up to 16 models; got more"):
        combine(Ensemble([Ensemble(["a"] * 9)] * 2), opened)


def test_a_yaml_of_one_checkpoint_does_not_fit_several_models() -> None:
    with pytest.raises(ModelError, match=r"config must be left out for several models; got 'x\.y"):
        combine(Ensemble(["a", "b"]), opened, "x.yaml")
    assert combine("a", opened, "x.yaml").manifest.name == "a"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.json cannot be read"):
        combine(tmp_path / "none.json", opened)


def manifests(*models: Manifest, **settings: Any) -> CombinedManifest:
    engines = {model.name: model for model in models}

    def open_one(name: str) -> StubEngine:
        engine = StubEngine(identity)
        engine.manifest = engines[name]
        return engine

    combination: Any = Ensemble(list(engines), **settings)
    model = combine(combination, open_one)
    assert isinstance(model, CombinedModel)
    return model.manifest


A, B = (Manifest(**(SIZES | {"name": name, "parameters": 10})) for name in "ab")


def test_the_manifest_describes_the_whole() -> None:
    other = B.replace(sample_rate=22050, licence="MIT")
    manifest = manifests(A, other)
    assert (manifest.name, manifest.parameters) == ("a+b", 20)
    assert manifest.licence == "not stated; MIT"
    assert (manifest.sample_rate, manifest.chunk) == (44100, 128)
    assert manifest.members == (A, other)


def test_its_json_has_the_manifest_of_each_model() -> None:
    fields = json.loads(manifests(A, B, weights=[2, 1]).to_json())
    assert (fields["ensemble"], fields["weights"]) == (["a", "b"], [2, 1])
    assert Manifest.from_json(json.dumps(fields["members"][1])) == B


def test_a_name_is_made_from_those_of_the_models() -> None:
    assert combined(Chain("a", "b")).manifest.name == "a-then-b"
    assert combined(Chain("a", "b", name="karaoke")).manifest.name == "karaoke"
    assert len(combined(Ensemble(["a" * 199, "b"])).manifest.name) == 200


@pytest.mark.parametrize(
    "other",
    [
        manifests(A, B, method="median"),
        manifests(A, B, weights=[1, 2]),
        manifests(A, B, stems=[["vocals"], ["vocals"]]),
        manifests(B, A),
        manifests(A, B.replace(checkpoint_sha256="0" * 64)),
    ],
)
def test_whatever_changes_the_output_changes_the_fingerprint(other: CombinedManifest) -> None:
    assert manifests(A, B).fingerprint == manifests(A, B).fingerprint != other.fingerprint
