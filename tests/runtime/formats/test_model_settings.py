"""Settings come from the first source that states them, and what nobody states is a guess."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bsmamba2 import Manifest, ModelError
from bsmamba2.formats.model_settings import ModelSettings, origins

GRAPH = Manifest("graph", family="bs_roformer")


def test_a_setting_comes_from_the_first_source_that_states_it() -> None:
    yaml, catalogue = ModelSettings(hop=512, zero_dc=False), ModelSettings(hop=441, zero_dc=True)
    assert yaml.over(catalogue) == yaml
    assert ModelSettings(chunk=1).over(catalogue) == ModelSettings(hop=441, chunk=1, zero_dc=True)


def test_known_settings_replace_those_of_the_graph() -> None:
    manifest = ModelSettings(stems=("drums",), hop=512, chunk=131584, zero_dc=True).apply(GRAPH)
    assert (manifest.stems, manifest.residual) == (("drums",), "residual")
    assert (manifest.hop, manifest.chunk, manifest.zero_dc) == (512, 131584, True)
    assert manifest.overlap == pytest.approx(44100 / 131584)


@pytest.mark.parametrize("name", ["sample_rate", "hop", "chunk"])
@pytest.mark.parametrize("value", [0, -1, 10**30])
def test_settings_out_of_range_are_refused(name: str, value: int) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ModelError, match=name):
        ModelSettings(**settings).apply(GRAPH)


@pytest.mark.parametrize("chunk", [0, -1, 1])
@pytest.mark.parametrize("sample_rate", [0, -1])
def test_two_settings_out_of_range_are_refused(chunk: int, sample_rate: int) -> None:
    with pytest.raises(ModelError, match="sample_rate|chunk"):
        ModelSettings(chunk=chunk, sample_rate=sample_rate).apply(GRAPH)


def test_without_settings_a_graph_keeps_its_own() -> None:
    assert ModelSettings().apply(GRAPH).to_json() == GRAPH.to_json()


def test_a_residual_can_be_named() -> None:
    manifest = ModelSettings(stems=("dry",), residual="reverb").apply(GRAPH)
    assert manifest.outputs == ("dry", "reverb")


@pytest.mark.parametrize(
    ("family", "guesses"),
    [
        ("bs_roformer", ("stems", "hop", "chunk", "zero_dc")),
        ("scnet", ("stems", "chunk", "normalize")),
        ("htdemucs", ("stems",)),
    ],
)
def test_settings_that_nobody_states_are_guesses(family: str, guesses: tuple[str, ...]) -> None:
    assert ModelSettings().unknown(family) == guesses
    stated = ModelSettings(("a",), hop=1, chunk=1, zero_dc=False, normalize=False)
    assert stated.unknown(family) == ()


def test_the_sizes_in_a_file_are_settings() -> None:
    stored = json.dumps({"stems": ["drums"], "sample_rate": 48000, "hop": 480, "chunk": 96000})
    settings = ModelSettings.from_stored(stored)
    assert settings == ModelSettings(("drums",), sample_rate=48000, hop=480, chunk=96000)


def test_each_setting_has_the_first_origin_that_states_it() -> None:
    stated = {
        "yaml": ModelSettings(hop=512),
        "catalogue": ModelSettings(hop=441, chunk=44100),
        "file": ModelSettings(chunk=88200),
    }
    found = origins(stated, guesses=("stems",))
    assert found == {"yaml": ("hop",), "catalogue": ("chunk",), "assumed": ("stems",)}
