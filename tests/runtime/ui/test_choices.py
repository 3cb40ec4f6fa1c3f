"""What the page offers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bsmamba2.files.encoding import FORMATS as KNOWN
from bsmamba2.models import registry
from bsmamba2.ui import choices


def test_the_shipped_model_is_offered_and_those_that_are_not_downloaded_are_not() -> None:
    assert choices.models() == list(registry.shipped())


def test_added_models_come_first_and_once() -> None:
    assert choices.models(["mine.onnx", "small"]) == ["mine.onnx", "small"]


def test_the_stems_are_those_of_the_model() -> None:
    assert choices.stems("small") == ("vocals", "instrumental")


def test_a_model_that_cannot_be_opened_has_no_stems() -> None:
    assert choices.stems("none.onnx") == ()


def test_every_format_is_one_that_stems_can_have() -> None:
    assert {format for format, _ in KNOWN.values()} >= set(choices.FORMATS.values()) - {None}
    assert next(iter(choices.FORMATS)) == choices.AS_THE_SONG


def test_every_card_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = SimpleNamespace(cards=["a", "b"])
    monkeypatch.setattr("bsmamba2.ui.choices.nvidia.driver", lambda: driver)
    assert choices.devices() == ["auto", "cpu", "cuda:0", "cuda:1", "tensorrt:0", "tensorrt:1"]


def test_without_a_card_only_the_cpu_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bsmamba2.ui.choices.nvidia.driver", lambda: None)
    assert choices.devices() == ["auto", "cpu"]
