"""The types of arguments: how a shell completes them, and which values are refused."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from bsmamba2.commands.parameters import (
    DeviceName,
    Gains,
    ModelName,
    OutputPath,
    PublishedName,
    Seconds,
    SongOrStdin,
    SongPath,
    completing,
)
from bsmamba2.devices import nvidia
from bsmamba2.devices.nvidia import Card, Driver
from bsmamba2.files.wav_reader import STDIN
from bsmamba2.files.wav_writer import STDOUT
from bsmamba2.models.registry import DEFAULT, PUBLISHED
from bsmamba2.pipeline.mix import Mix


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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1:30", 90),
        ("0:05.25", 5.25),
        ("1:02:03.5", 3723.5),
        ("90:00", 5400),
        (".5", 0.5),
        ("1:5", 65),
    ],
)
def test_a_time_is_seconds_or_minutes_and_seconds(text: str, seconds: float) -> None:
    assert Seconds().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "x", "-5", "1:60", "1:99", "1:60:00", "1:", ":30", "1m30s", "nan", "inf", "1,5"]
)
def test_another_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(click.BadParameter, match="must be seconds or m:ss, such as 90, 1:30"):
        Seconds().convert(text, None, None)


def test_a_hyphen_is_a_standard_stream_and_a_file_of_that_name_has_its_folder() -> None:
    assert SongOrStdin().convert("-", None, None) == STDIN
    assert OutputPath().convert("-", None, None) == STDOUT
    assert SongOrStdin().convert("./-", None, None) == Path("-")


def test_a_mix_is_read() -> None:
    assert Gains().convert("vocals=-3", None, None) == Mix({"vocals": -3})
