"""The output of a SeparationEffect, and its settings, copies and shared models."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bsmamba2
from bsmamba2 import DeviceError, ModelError, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.models import registry
from bsmamba2_pedalboard import Separate, SeparationEffect
from support.engines import StubEngine, StubModel

RATES = [8000, 44100, 48000, 192000]


def close(output: Audio, expected: npt.NDArray[Any]) -> None:
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(500,), (2, 500), (500, 2)])
def test_output_equals_input_if_the_stem_is_the_mixture(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio], shape: tuple[int, ...]
) -> None:
    close(effect(1.0)(noise(*shape), 44100), noise(*shape))


@pytest.mark.parametrize("shape", [(500,), (2, 500), (500, 2)])
def test_instrumental_is_the_mixture_minus_the_vocals(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio], shape: tuple[int, ...]
) -> None:
    close(effect(0.25)(noise(*shape), 44100), 0.25 * noise(*shape))
    close(effect(0.25, stem="instrumental")(noise(*shape), 44100), 0.75 * noise(*shape))


@pytest.mark.parametrize("rate", RATES)
def test_the_stems_sum_to_the_mixture_at_every_rate(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio], rate: float
) -> None:
    audio = noise(2, 3000)
    parts = [effect(0.3, stem=stem)(audio, rate) for stem in ("vocals", "instrumental")]
    close(parts[0] + parts[1], audio)


@pytest.mark.parametrize("rate", RATES)
def test_click_keeps_its_position_at_every_rate(
    effect: Callable[..., SeparationEffect], rate: float
) -> None:
    click = np.zeros(4000, np.float32)
    click[1234] = 1
    assert np.argmax(effect()(click, rate)) == 1234


@given(mix=st.floats(0, 1), gain_db=st.floats(-60, 20))
def test_mix_and_gain_weight_input_and_stem(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio], mix: float, gain_db: float
) -> None:
    audio = noise(2, 99)
    expected = (1 - mix) * audio + mix * 10 ** (gain_db / 20) * 0.5 * audio
    output = effect(0.5, mix=mix, gain_db=gain_db)(audio, 44100)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5)


def test_mix_0_is_exactly_the_input_and_mix_1_exactly_the_stem(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio]
) -> None:
    audio = noise(2, 99)
    np.testing.assert_array_equal(effect(0.5, mix=0)(audio, 48000), audio)
    stem = effect(0.5)._separator(audio, 48000)["vocals"]
    np.testing.assert_array_equal(effect(0.5, mix=1)(audio, 48000), stem)


def test_a_gain_of_minus_infinity_mutes_the_stem(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio]
) -> None:
    assert not effect(gain_db=float("-inf"))(noise(2, 99), 44100).any()


def test_changed_settings_apply_from_the_next_call(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio]
) -> None:
    separation = effect(0.25)
    separation.stem, separation.gain_db, separation.mix = "no_vocals", 20, 0.5
    close(separation(noise(2, 99), 44100), (0.5 + 0.5 * 10 * 0.75) * noise(2, 99))


def test_more_overlap_means_more_runs(
    engine: Callable[..., StubEngine], noise: Callable[..., Audio]
) -> None:
    runs = []
    for overlap in (0, 0.75):
        model = engine()
        SeparationEffect(model, overlap=overlap)(noise(2, 640), 44100)
        runs.append(len(model.lengths))
    assert runs[1] > 2 * runs[0]


def test_default_overlap_is_the_models(effect: Callable[..., SeparationEffect]) -> None:
    separation = effect(overlap=0.5)
    assert separation.overlap == 0.5
    separation.overlap = None
    assert separation.overlap == 0.25


@pytest.mark.parametrize("name", ["other", "accompaniment", "no_vocals", "instrumental"])
def test_stem_aliases_select_the_stem_under_its_own_name(
    effect: Callable[..., SeparationEffect], name: str
) -> None:
    assert effect(stem=name).stem == "instrumental"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("stem", "drums", "stem must be one of vocals, instrumental; got 'drums'"),
        ("mix", 1.01, "mix must be 0 (dry) to 1 (wet); got 1.01: half of each is 0.5"),
        ("mix", -0.1, "mix must be"),
        ("mix", float("nan"), "mix must be"),
        ("gain_db", 101, "gain_db must be -inf to 100 dB; got 101: 20 dB is a factor of 10"),
        ("gain_db", float("nan"), "gain_db must be"),
        ("overlap", 2, "overlap must be in [0, 1); got 2: MSST's num_overlap 2 is 0.5"),
        ("overlap", 1.0, "overlap must be"),
    ],
)
def test_value_out_of_range_is_a_value_error_and_changes_nothing(
    effect: Callable[..., SeparationEffect], name: str, value: Any, sentence: str
) -> None:
    separation = effect()
    before = getattr(separation, name)
    for attempt in (lambda: setattr(separation, name, value), lambda: effect(**{name: value})):
        with pytest.raises(ValueError, match=re.escape(sentence)) as error:
            attempt()
        assert isinstance(error.value, bsmamba2.Error)
    assert getattr(separation, name) == before


@pytest.mark.parametrize("name", ["stem", "mix", "gain_db", "overlap", "device"])
@pytest.mark.parametrize("value", [b"1", [0.5], 1j])
def test_wrong_type_is_a_type_error(
    effect: Callable[..., SeparationEffect], name: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=f"{name} must be"):
        effect(**{name: value})


@pytest.mark.parametrize("name", ["model", "device"])
def test_model_and_device_are_read_only(effect: Callable[..., SeparationEffect], name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(effect(), name, "cpu")


@pytest.mark.parametrize("model", [44100, b"vocals", ["vocals"], SeparationEffect])
def test_non_model_is_a_type_error(model: Any) -> None:
    with pytest.raises(TypeError, match="model must be a name, a path"):
        SeparationEffect(model)


def test_installation_without_weights_reports_how_to_get_a_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(registry, "shipped", dict)
    with pytest.raises(ModelError, match="model must be given, .* use --model"):
        SeparationEffect()


def test_effects_share_a_separator_or_an_engine(
    engine: Callable[..., StubEngine], noise: Callable[..., Audio]
) -> None:
    model = engine(0.25)
    separator = Separator(model)
    for shared in (model, separator):
        SeparationEffect(shared, stem="vocals")(noise(2, 32), 44100)
        SeparationEffect(shared, stem="instrumental")(noise(2, 32), 44100)
    assert len(model.lengths) == 4


def test_device_cannot_be_given_with_a_separator_or_an_engine(
    engine: Callable[..., StubEngine],
) -> None:
    for model in (engine(), Separator(engine())):
        assert SeparationEffect(model).device == "cpu"
        with pytest.raises(DeviceError, match="device must be 'auto'"):
            SeparationEffect(model, device="cuda")


def test_repr_shows_the_settings(effect: Callable[..., SeparationEffect]) -> None:
    shown = repr(effect(gain_db=-1.5, mix=0.25))
    pattern = r"<bsmamba2_pedalboard.SeparationEffect stem='vocals' gain_db=-1.5 mix=0.25 at 0x\w+>"
    assert re.fullmatch(pattern, shown)


def by_pickle(original: Any) -> Any:
    return pickle.loads(pickle.dumps(original))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, by_pickle])
def test_copy_loads_its_model_again_and_keeps_every_setting(
    opened: list[tuple[str, str]], noise: Callable[..., Audio], duplicate: Callable[[Any], Any]
) -> None:
    settings: dict[str, Any] = {"stem": "instrumental", "gain_db": 3.0, "mix": 0.5, "overlap": 0.25}
    original = SeparationEffect("half.onnx", device="cpu", **settings)
    twin = duplicate(original)
    assert opened == [("half.onnx", "cpu")] * 2
    assert {name: getattr(twin, name) for name in settings} == settings
    np.testing.assert_array_equal(twin(noise(2, 99), 44100), original(noise(2, 99), 44100))


@pytest.mark.parametrize("trust", [{}, {"trust_engine": True}])
def test_engine_is_trusted_only_if_requested(
    monkeypatch: pytest.MonkeyPatch, engine: Callable[..., StubEngine], trust: dict[str, Any]
) -> None:
    requested = []

    def open_model(model: str, *, trust_engine: bool, **_: Any) -> StubModel:
        requested.append(trust_engine)
        return StubModel(engine())

    monkeypatch.setattr("bsmamba2.models.loaded_model.open_model", open_model)
    classes: list[Any] = [SeparationEffect, Separate]
    for make in classes:
        copy.copy(make("vocals.engine", **trust))
    assert requested == [bool(trust)] * 4


@pytest.mark.parametrize("duplicate", [copy.copy, by_pickle])
def test_copy_shares_no_settings_or_engine(
    opened: list[tuple[str, str]], duplicate: Callable[[Any], Any]
) -> None:
    original = SeparationEffect("half.onnx")
    twin = duplicate(original)
    twin.mix = 0.5
    assert original.mix == 1
    assert twin._separator._engine is not original._separator._engine


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, by_pickle])
def test_effect_with_a_live_engine_cannot_be_copied_and_the_error_explains_why(
    effect: Callable[..., SeparationEffect], duplicate: Callable[[Any], Any]
) -> None:
    with pytest.raises(TypeError, match="make it from the model's name or path"):
        duplicate(effect())
