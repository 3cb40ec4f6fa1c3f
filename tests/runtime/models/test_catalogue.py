"""The catalogue: the one in the package is right, and a wrong one is refused with its place."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsmamba2 import ModelError
from bsmamba2.formats.manifest import Manifest
from bsmamba2.formats.model_settings import ModelSettings
from bsmamba2.models import catalogue
from bsmamba2.models.cached_file import cached_files
from bsmamba2.models.catalogue import (
    MAX_BYTES,
    Published,
    Source,
    parse_catalogue,
    read_catalogue,
)

SHIPPED = Path(catalogue.__file__).with_name("catalogue.json")
DOCUMENT = json.loads(SHIPPED.read_text())
MODELS = read_catalogue(SHIPPED)

MODEL: dict[str, Any] = {
    "name": "mine",
    "family": "mel_band_roformer",
    "purpose": "karaoke",
    "stems": ["lead", "backing"],
    "residual": "music",
    "licence": "MIT",
    "page": "https://example.org",
    "note": "one line",
    "files": [
        {
            "url": "https://example.org/lead.ckpt",
            "bytes": 10,
            "sha256": "a" * 64,
            "stems": ["lead"],
            "mirrors": [{"url": "https://example.org/lead.safetensors", "sha256": "b" * 64}],
        },
        {"url": "https://example.org/backing.ckpt?download=true", "stems": ["backing"]},
    ],
    "figures": [{"test_set": "ours", "source": "us", "sdr_db": {"lead": 7, "average": 6.5}}],
    "settings": {"sample_rate": 48000, "hop": 441, "chunk": 96000, "overlap": 0.5, "zero_dc": True},
}


def parse(*models: dict[str, Any]) -> tuple[Published, ...]:
    return parse_catalogue(json.dumps({"format": 1, "models": models}).encode(), "x.json")


def changed(place: str, value: Any) -> dict[str, Any]:
    """MODEL with another value at a place such as ``files.0.url``; None removes it."""
    model = copy.deepcopy(MODEL)
    *parents, last = place.split(".")
    at: Any = model
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if value is None:
        del at[last]
    else:
        at[int(last) if isinstance(at, list) else last] = value
    return model


def test_every_field_is_read() -> None:
    (model,) = parse(MODEL)
    assert (model.name, model.family, model.purpose) == ("mine", "mel_band_roformer", "karaoke")
    assert (model.licence, model.page, model.note) == ("MIT", "https://example.org", "one line")
    assert model.settings == ModelSettings(
        ("lead", "backing"), "music", 48000, 441, 96000, 0.5, True, None
    )
    assert dict(model.figures[0].sdr_db) == {"lead": 7.0, "average": 6.5}
    mirror = Source("https://example.org/lead.safetensors", None, "b" * 64)
    assert model.files[0].sources == (Source("https://example.org/lead.ckpt", 10, "a" * 64), mirror)


def test_files_have_the_names_of_the_model_and_of_their_stems() -> None:
    (model,) = parse(MODEL)
    names = [cached.path.name for cached in cached_files(model)]
    assert names == ["mine_lead.ckpt", "mine_lead.safetensors", "mine_backing.ckpt"]


def test_a_size_is_known_if_those_of_all_files_are() -> None:
    assert parse(MODEL)[0].size is None
    assert parse(changed("files.1.bytes", 5))[0].size == 15


def test_an_instrumental_can_be_asked_for_wherever_there_are_vocals() -> None:
    by_name = {model.name: model for model in MODELS}
    assert by_name["htdemucs"].outputs[-1] == "instrumental"
    assert by_name["mel_band_roformer_dereverb"].outputs == ("dry", "reverb")


WRONG = [
    ("name", "Mine", "models[0].name must be 1 to 64 of a-z 0-9 _ . -"),
    ("name", "../mine", "models[0].name must be 1 to 64 of a-z 0-9 _ . -"),
    ("name", "mine.ckpt", "models[0].name must be a name without the suffix of a file"),
    ("family", "mdx23c", "models[0].family must be one of bs_mamba2, "),
    ("stems", ["lead", "lead"], "models[0].stems must be different names"),
    ("stems", ["lead", "../x"], "models[0].stems[1] must be a name of a-z 0-9 _ -"),
    ("stems", [], "models[0].stems must be a list of 1 to 16 elements"),
    ("residual", "lead", "models[0].residual must be another name than the stems'"),
    ("licence", None, "models[0].licence must be given"),
    ("licence", "a\nb", "models[0].licence must be one printable line"),
    ("page", "http://example.org", "models[0].page must be an address that begins with https://"),
    ("files.0.url", "ftp://example.org/x.ckpt", "models[0].files[0].url must be an address that "),
    ("files.0.url", "https://u:p@example.org/x.ckpt", "url must be an address without a user name"),
    ("files.0.url", "https://example.org/x.engine", "url must be the address of a file in .ckpt,"),
    ("files.0.url", "https://[x/x.ckpt", "models[0].files[0].url must be a web address"),
    ("files.0.bytes", 0, "models[0].files[0].bytes must be an integer in 1-17179869184; got 0"),
    ("files.0.sha256", "A" * 64, "models[0].files[0].sha256 must be 64 of 0-9 a-f, or null"),
    ("files.0.stems", ["other"], "models[0].files must serve each of the stems lead, backing"),
    ("files.0.stems", ["lead", "backing"], "models[0].files must serve each of the stems"),
    ("files.1.stems", None, "models[0].files[1].stems must be given"),
    (
        "files.0.mirrors.0.url",
        "https://example.org/y.ckpt",
        "models[0].files[0].mirrors[0] must have the sha256 of https://example.org/lead.ckpt",
    ),
    ("figures.0.sdr_db", {"bass": 5}, "figures[0].sdr_db must have keys of lead, backing, music"),
    ("figures.0.sdr_db", {}, "figures[0].sdr_db must be SDR in dB by stem; got {}"),
    ("settings.hop", 4096, "models[0].settings.hop must be an integer in 1-512; got 4096"),
    ("settings.overlap", 1, "models[0].settings.overlap must be a number in 0 to 0.99; got 1"),
    ("settings.normalize", True, "mel_band_roformer settings must be among sample_rate, hop,"),
    ("lisence", "MIT", "models[0]: the fields must be among name, family"),
]


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_a_wrong_field_is_refused_with_its_place(place: str, value: Any, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        parse(changed(place, value))
    assert str(caught.value).startswith("the catalogue x.json is wrong: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "must be JSON"),
        (b"[]", "the document must be an object"),
        (b"\xff\xfe\xfd", "must be JSON"),
        (b'{"format": 1}', "models must be given"),
        (b'{"format": 2, "models": []}', "format must be 1; got 2"),
        (b'{"format": 1, "format": 1, "models": []}', "'format' is given twice"),
        (b'{"format": NaN, "models": []}', "NaN is not a number of JSON"),
        (b"[" * 100_000, "must be JSON"),
        (b" " * (MAX_BYTES + 1), "must have at most 1,048,576 bytes"),
    ],
)
def test_a_file_that_is_no_catalogue_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        parse_catalogue(content, "x.json")


def test_two_models_cannot_share_a_name_a_file_name_or_a_file() -> None:
    alone = {"files": [{"url": "https://example.org/x.ckpt", "sha256": "a" * 64}]}
    twin = {**MODEL, "name": "mine_lead", "stems": ["lead"], "figures": [], **alone}
    with pytest.raises(ModelError, match=r"models\[1\] must not have the name mine"):
        parse(MODEL, MODEL)
    with pytest.raises(ModelError, match=r"\[1\] must not have the file name mine_lead.ckpt"):
        parse(MODEL, twin)
    with pytest.raises(ModelError, match=r"\[1\] must not have the sha256 aaa"):
        parse(MODEL, {**twin, "name": "other"})


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_settings_in_the_package_suit_a_manifest_and_leave_nothing_open(
    model: Published,
) -> None:
    sizes = {"scnet": (4096, 1024), "htdemucs": (4096, 1024)}.get(model.family, (2048, 441))
    unnamed = tuple(f"stem_{number}" for number in range(len(model.stems)))
    plain = Manifest("x", unnamed, None, family=model.family, n_fft=sizes[0], hop=sizes[1])
    applied = model.settings.apply(plain)
    assert model.settings.unknown(model.family) == ()
    assert (applied.stems, applied.sample_rate) == (model.stems, 44100)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_files_in_the_package_come_over_https_and_have_sizes(model: Published) -> None:
    for file in model.files:
        for source in file.sources:
            assert source.url.startswith("https://")
            assert source.size is not None
    one_stem = len(model.stems) == 1
    assert one_stem == (model.residual is not None)


def test_bsmamba2_comes_first_and_only_files_without_a_published_hash_have_none() -> None:
    assert MODELS[0].name == "bs_mamba2_vocals"
    without = [m.name for m in MODELS for f in m.files for s in f.sources if s.sha256 is None]
    assert without == ["scnet_xl"]


def test_a_network_that_serves_one_stem_still_returns_all() -> None:
    bag = next(model for model in MODELS if model.name == "htdemucs_ft")
    assert [file.stems for file in bag.files] == [("drums",), ("bass",), ("other",), ("vocals",)]
    assert bag.settings.stems == ("drums", "bass", "other", "vocals")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the path of every value inside a document."""
    entries: Any = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    for key, inner in entries:
        yield (*place, key)
        yield from places(inner, (*place, key))


PLACES = list(places({"format": 1, "models": [MODEL]}))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.sampled_from(PLACES), value=json_values)
def test_any_value_at_any_place_is_read_or_refused(place: tuple[Any, ...], value: Any) -> None:
    document: Any = {"format": 1, "models": [copy.deepcopy(MODEL)]}
    at = document
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    try:
        models = parse_catalogue(json.dumps(document).encode(), "x.json")
    except ModelError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 800
    else:
        assert all(dataclasses.is_dataclass(model) for model in models)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        assert parse_catalogue(content, "x.json") == ()
    except ModelError as error:
        assert str(error).isprintable()
