"""The facts of a report: one table for each model, and the versions."""

from __future__ import annotations

from bsmamba2 import Ensemble, Separator
from bsmamba2.models.loaded_model import LoadedModel
from bsmamba2.report.facts import facts_of, versions
from support.engines import Stubs


def test_a_model_is_described_with_its_licence_and_settings(stub: Stubs) -> None:
    model = LoadedModel(stub.half(licence="CC0"))
    facts = facts_of(model, {"File": "a.wav"}, {"Format": "FLAC"}, 0.5)
    assert list(facts) == ["Song", "Model", "Settings", "Versions"]
    model_facts = facts["Model"]
    assert (model_facts["Name"], model_facts["Licence of the weights"]) == ("stub", "CC0")
    assert (model_facts["Overlap"], model_facts["Device"]) == ("0.5", "cpu")


def test_each_model_of_a_combination_has_a_table(stub: Stubs) -> None:
    separator = Separator(Ensemble([stub.half(), stub.identity()]))
    facts = facts_of(separator._model, {}, {}, None)
    assert {"Model 1", "Model 2"} <= set(facts)
    assert facts["Model 1"]["Overlap"] == "0.25"


def test_versions_name_what_results_depend_on() -> None:
    assert {"bsmamba2", "Python", "Platform", "numpy", "soundfile"} <= set(versions())
