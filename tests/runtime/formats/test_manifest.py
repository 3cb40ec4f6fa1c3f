"""The manifest is read back as it was written, and believes nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import Manifest, ModelError
from bsmamba2.formats.manifest import Check, State

FULL = Manifest(
    name="voice",
    states=(State("layers.0", (62, 16, 64)),),
    initialisers={"final_norm.gamma": (256,)},
    verification={"audio": 118.5},
    check=Check(0, 44100, 20, 60.0, np.arange(5, dtype=np.float32)),
    checkpoint_sha256="0" * 64,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_json_and_back_is_the_manifest():
    assert Manifest.from_json(FULL.to_json()).to_json() == FULL.to_json()


@given(st.sampled_from(sorted(json.loads(FULL.to_json()))), JSON)
def test_any_value_in_any_field_is_taken_or_refused_with_a_sentence(name, value):
    fields = json.loads(FULL.to_json()) | {name: value}
    try:
        Manifest.from_json(json.dumps(fields))
    except ModelError as error:
        assert "manifest" in str(error)


@given(st.sampled_from(sorted(set(json.loads(FULL.to_json())) - {"format"})))
def test_a_missing_field_is_a_damaged_manifest(name):
    fields = json.loads(FULL.to_json())
    del fields[name]
    with pytest.raises(ModelError, match="damaged"):
        Manifest.from_json(json.dumps(fields))


def test_a_later_format_asks_for_an_upgrade():
    with pytest.raises(ModelError, match="has format 2, .* pip install -U bsmamba2"):
        Manifest.from_json(FULL.to_json().replace('"format":1', '"format":2'))


@pytest.mark.parametrize("stem", ["../vocals", "a/b", "", "x" * 65, "vo\0cals"])
def test_a_stem_cannot_become_a_path(stem):
    with pytest.raises(ModelError, match="stems"):
        Manifest("voice", stems=(stem,))


@pytest.mark.parametrize(
    ("name", "value"),
    [("sample_rate", 0), ("hop", 2000), ("n_fft", 2047), ("chunk", 1 << 40), ("overlap", 1.0)],
)
def test_a_size_out_of_range_is_named(name, value):
    with pytest.raises(ModelError, match=name):
        Manifest("voice", **{name: value})
