"""A manifest is read back as it was written, and every field of an untrusted one is checked."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import Manifest, ModelError
from bsmamba2.formats.manifest import Check, State, default_overlap, residual_of
from bsmamba2.installation import upgrade_command

CHECK = Check(0, 44100, 20, 60.0, np.arange(5, dtype=np.float32))
FULL = Manifest(
    name="voice",
    states=(State("layers.0", (62, 16, 64)),),
    initialisers={"final_norm.gamma": (256,)},
    verification={"audio": 118.5},
    check=CHECK,
    checkpoint_sha256="0" * 64,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_json_and_back_is_the_manifest() -> None:
    assert Manifest.from_json(FULL.to_json()).to_json() == FULL.to_json()


@given(st.sampled_from(sorted(json.loads(FULL.to_json()))), JSON)
def test_any_value_in_any_field_is_accepted_or_refused_in_a_sentence(name: str, value: Any) -> None:
    fields = json.loads(FULL.to_json()) | {name: value}
    try:
        Manifest.from_json(json.dumps(fields))
    except ModelError as error:
        assert "manifest" in str(error)


@given(st.sampled_from(sorted(set(json.loads(FULL.to_json())) - {"format"})))
def test_a_manifest_without_a_field_is_damaged(name: str) -> None:
    fields = json.loads(FULL.to_json())
    del fields[name]
    with pytest.raises(ModelError, match="damaged"):
        Manifest.from_json(json.dumps(fields))


def test_a_later_format_needs_an_upgrade() -> None:
    with pytest.raises(ModelError, match=f"has format 2, .* {re.escape(upgrade_command())}"):
        Manifest.from_json(FULL.to_json().replace('"format":1', '"format":2'))


@pytest.mark.parametrize("stem", ["../vocals", "a/b", "", "x" * 65, "vo\0cals"])
def test_a_stem_cannot_become_a_path(stem: str) -> None:
    with pytest.raises(ModelError, match="stems"):
        Manifest("voice", stems=(stem,))


@pytest.mark.parametrize(
    ("name", "value"),
    [("sample_rate", 0), ("hop", 2000), ("n_fft", 2047), ("chunk", 1 << 40), ("overlap", 1.0)],
)
def test_a_size_out_of_range_is_named_with_its_value(name: str, value: Any) -> None:
    with pytest.raises(ModelError, match=f"manifest's {name} must be .*; got {value}"):
        Manifest("voice", **{name: value})


@given(st.integers(1, 1 << 24), st.integers(8000, 384000))
def test_the_default_crossfade_is_a_second_or_half_a_chunk(chunk: int, sample_rate: int) -> None:
    crossfade = default_overlap(chunk, sample_rate) * chunk
    assert crossfade == pytest.approx(min(sample_rate, chunk / 2))


def test_the_residual_of_vocals_is_the_instrumental() -> None:
    assert residual_of(("vocals",)) == "instrumental"
    assert residual_of(("drums",)) == residual_of(("vocals", "drums")) == "residual"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_check_whose_values_are_not_finite_is_refused(value: float) -> None:
    check = replace(CHECK, expected=np.full(5, value, np.float32))
    with pytest.raises(ModelError, match=r"check\.expected must be finite"):
        Manifest.from_json(FULL.replace(check=check).to_json())


@pytest.mark.parametrize("snr_db", [-1e300, 0.0, 9.9])
def test_a_check_that_demands_nothing_is_refused(snr_db: float) -> None:
    check = replace(CHECK, snr_db=snr_db)
    with pytest.raises(ModelError, match=r"check\.snr_db must be at least 10 dB"):
        Manifest.from_json(FULL.replace(check=check).to_json())


@pytest.mark.parametrize(
    "sizes",
    [
        {"hop": 1, "chunk": 1 << 24},
        {"hop": 1, "chunk": 2048, "sample_rate": 384000},
        {"n_fft": 65536, "hop": 16384, "chunk": 1 << 24},
    ],
)
def test_a_run_whose_spectrum_would_fill_the_memory_is_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="hop must be longer"):
        Manifest("voice", **sizes)


@pytest.mark.parametrize(
    "states",
    [
        (State("a", (1 << 28,)),),
        (State("a", (1, 1 << 26)), State("b", (1, 1 << 26)), State("c", (1, 1))),
        (State("a", (1, 2)), State("a", (1, 2))),
        (State("a", ()),),
    ],
)
def test_states_that_no_stream_has_are_refused(states: tuple[State, ...]) -> None:
    with pytest.raises(ModelError, match="states must be"):
        Manifest("voice", states=states)
