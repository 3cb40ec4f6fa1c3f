"""The types of arguments: how a shell completes them, and which values are refused."""

from __future__ import annotations

import click
import pytest

from bsmamba2.commands.parameters import DeviceName, ModelName, PublishedName, SongPath, completing
from bsmamba2.devices import nvidia
from bsmamba2.devices.nvidia import Card, Driver
from bsmamba2.models.registry import DEFAULT, PUBLISHED


def complete(kind: DeviceName | ModelName | PublishedName, start: str) -> list[str]:
    context, parameter = click.Context(click.Command("separate")), click.Option(["--option"])
    return [item.value for item in kind.shell_complete(context, parameter, start)]


def test_models_are_completed_by_their_names_and_as_files() -> None:
    assert complete(ModelName(), "") == [DEFAULT, *(model.name for model in PUBLISHED), ""]
    assert complete(ModelName(), "bs_m") == ["bs_mamba2_vocals", "bs_m"]


def test_names_to_download_are_completed_without_those_of_the_package() -> None:
    assert complete(PublishedName(), "") == [model.name for model in PUBLISHED]


def test_words_of_the_catalogue_are_completed() -> None:
    context, parameter = click.Context(click.Command("models")), click.Option(["--option"])
    found = completing(lambda model: [model.purpose])(context, parameter, "de")
    assert [item.value for item in found] == ["denoise", "dereverb"]


def test_a_wrong_catalogue_does_not_stop_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_CATALOGUE", "/nowhere")
    assert complete(PublishedName(), "htdemucs_f") == ["htdemucs_ft"]


def test_devices_are_completed_to_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card("Fast Card", (9, 0), 80 << 30)
    monkeypatch.setattr(nvidia, "driver", lambda: None)
    assert complete(DeviceName(), "") == ["auto", "cpu"]
    monkeypatch.setattr(nvidia, "driver", lambda: Driver((card, card)))
    assert complete(DeviceName(), "cuda") == ["cuda:0", "cuda:1"]


def test_an_empty_path_is_refused() -> None:
    """It would mean the current folder and all its songs."""
    with pytest.raises(click.BadParameter, match="must be a path; got an empty one"):
        SongPath().convert("", None, None)
