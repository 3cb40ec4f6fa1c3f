"""Our effects beside Pedalboard's Gain on one grid: shapes, types, errors, and where time runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pedalboard import Gain, LowpassFilter, Pedalboard
from pedalboard_native._internal import AddLatency

from bsmamba2 import AudioError
from bsmamba2_pedalboard import Board, Separate

RATES = [8000, 11025, 22050, 44100, 48000, 96000, 192000]
SIZES = [1, 7, 500, 8192, 1, 100_000, 64]
LENGTHS = [0, 1, 2, 3, 65, 500]
SHAPES = [
    *((length,) for length in LENGTHS),
    *((channels, length) for channels in (1, 2) for length in LENGTHS),
    *((length, channels) for channels in (1, 2) for length in LENGTHS),
    *((6, 0), (0, 6)),
]
IMPOSSIBLE = [(), (2, 3, 4), (1, 1, 5), (3, 3), (0, 0)]
DTYPES = ["f2", "f4", "f8", ">f4", "i2", "i4", "u1", "?", "c8", "O", "S4", "longdouble"]


def outcome(effect, *arguments):
    """What a call gives, in the words of the contract; of an error, Pedalboard's type of it."""
    try:
        output = effect(*arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        return next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
    return output.shape, output.dtype, output.flags.c_contiguous


@pytest.fixture(params=["SeparationEffect", "Board", "empty Board", "nested Board"])
def ours(request, effect):
    kinds = {
        "SeparationEffect": effect,
        "Board": lambda: Board([Gain(6), effect(), Gain(-6)]),
        "empty Board": Board,
        "nested Board": lambda: Board([Board([Gain(0)]), Board([effect()])]),
    }
    return kinds[request.param]()


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shape", SHAPES + IMPOSSIBLE)
def test_shapes_and_errors_are_pedalboard_s(ours, noise, shape, rate):
    assert outcome(ours, noise(*shape), rate) == outcome(Gain(0), noise(*shape), rate)


@pytest.fixture(scope="module")
def native(engine):
    return Separate(engine())


@pytest.mark.parametrize(("rate", "size"), [*zip(RATES, SIZES, strict=True)])
def test_the_native_plugin_keeps_to_the_same_grid(native, noise, rate, size):
    for shape in SHAPES[:-2] + IMPOSSIBLE:  # it has no six channels
        native.reset()
        audio = noise(*shape)
        assert outcome(native, audio, rate, size) == outcome(Gain(0), audio, rate, size), shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_types_of_samples_are_a_gain_s_for_the_native_plugin_too(native, dtype):
    audio = np.zeros((2, 99)).astype(dtype)
    assert outcome(native, audio, 44100) == outcome(Gain(0), audio, 44100)


@pytest.mark.parametrize("shape", [(700,), (1, 700), (2, 700), (700, 2)])
@pytest.mark.parametrize("rate", RATES)
def test_parts_come_as_from_a_native_plugin_that_is_as_late(native, effect, noise, shape, rate):
    for ours in (effect(), native):
        ours.reset()
        latency = getattr(ours, "effect", ours).latency_at(rate)
        late, audio = AddLatency(latency), noise(*shape)
        for size in [500] * (latency // 700 + 3):
            given = (audio, rate, size, False)
            assert outcome(ours, *given) == outcome(late, *given)


@pytest.mark.parametrize("dtype", DTYPES)
def test_types_of_samples_are_pedalboard_s(ours, dtype):
    audio = np.zeros((2, 99)).astype(dtype)
    assert outcome(ours, audio, 44100) == outcome(Gain(0), audio, 44100)


@pytest.mark.parametrize("audio", [[0.1, 0.2], None, 1.0, "song.wav"])
def test_what_is_no_array_is_a_type_error(ours, audio):
    assert outcome(ours, audio, 44100) is outcome(Gain(0), audio, 44100) is TypeError


@pytest.mark.parametrize("rate", ["44100", None, np.float32(44100), np.int64(44100), 44100.0])
def test_types_of_rates_are_pedalboard_s(ours, noise, rate):
    assert outcome(ours, noise(2, 99), rate) == outcome(Gain(0), noise(2, 99), rate)


@pytest.mark.parametrize("size", [1, 7, np.int64(64), 8192, 100_000, 1.5, "64", None])
def test_types_of_buffer_sizes_are_pedalboard_s(ours, noise, size):
    assert outcome(ours, noise(2, 99), 44100, size) == outcome(Gain(0), noise(2, 99), 44100, size)


@pytest.mark.parametrize("size", [0, -1])
def test_a_buffer_of_nothing_is_refused_where_a_native_plugin_would_hang(ours, noise, size):
    with pytest.raises(ValueError, match="buffer_size must be 1 sample or more"):
        ours(noise(2, 99), 44100, size)


@given(size=st.integers(1, 100_000), samples=st.integers(0, 300))
def test_the_buffer_size_makes_no_difference(effect, noise, size, samples):
    board = Board([LowpassFilter(2000), effect(0.5)])
    audio = noise(2, samples + 3)
    np.testing.assert_allclose(board(audio, 44100, size), board(audio, 44100), rtol=0, atol=1e-6)


def test_arguments_have_pedalboard_s_names(ours, noise):
    audio = noise(2, 99)
    named = ours.process(input_array=audio, sample_rate=44100, buffer_size=64, reset=True)
    np.testing.assert_array_equal(named, ours(audio, 44100, 64, True))


@pytest.mark.parametrize("shape", [(99,), (2, 99), (99, 2), (1, 99)])
def test_the_input_is_neither_changed_nor_handed_back(ours, noise, shape):
    audio = noise(*shape)
    output = ours(audio, 44100)
    output[:] = 9
    np.testing.assert_array_equal(audio, noise(*shape))


@pytest.mark.parametrize(
    "view", [lambda a: a[:, ::2], lambda a: a[::-1], lambda a: a.T, np.asfortranarray]
)
def test_views_of_any_strides_are_read_aright(ours, noise, view):
    audio = view(noise(2, 200))
    audio.flags.writeable = False
    np.testing.assert_allclose(ours(audio, 44100), audio, rtol=0, atol=1e-6)
    assert ours(audio, 44100).flags.c_contiguous


shapes = st.one_of(
    st.tuples(st.integers(0, 400)),
    st.tuples(st.integers(0, 2), st.integers(0, 4)),
    st.tuples(st.integers(0, 4), st.integers(0, 2)),
    st.sampled_from([(2, 50), (50, 2), (1, 50), (50, 1), (2, 2), (3, 3)]),
)


def _time_by_time(plugin, shape):
    """A lowpass of ones rises along time alone, so the output shows which axis was taken for it."""
    try:
        return plugin(np.ones(shape, np.float32), 44100)
    except RuntimeError:
        return np.array("refused")


@given(st.lists(shapes, min_size=1, max_size=6))
@example([(50,), (3, 3), (0, 0), (1, 3)])  # no channels are no news of the number of channels
@example([(50, 2), (1, 1), (3, 3)])  # but one sample is news of the orientation
def test_arrays_are_read_in_the_light_of_earlier_ones_as_pedalboard_does(history):
    native, ours = Pedalboard([LowpassFilter(100)]), Board([LowpassFilter(100)])
    for shape in history:
        np.testing.assert_array_equal(_time_by_time(ours, shape), _time_by_time(native, shape))


def test_a_reset_forgets_which_way_arrays_lay(ours, noise):
    ours(noise(2, 99), 44100)
    assert ours(noise(2, 2), 44100).shape == (2, 2)
    ours.reset()
    with pytest.raises(RuntimeError, match="could be"):
        ours(noise(2, 2), 44100)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_last_block_shorter_than_its_channels_stays_stereo(effect, noise, samples):
    half = effect(0.5)
    half(noise(2, 99), 44100)
    block = noise(2, samples)
    np.testing.assert_allclose(half(block, 44100), 0.5 * block, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("audio", "rate"),
    [
        (np.zeros((65, 99)), 44100),
        (np.full((2, 99), np.nan), 44100),
        (np.zeros((2, 99)), 0),
        (np.zeros((2, 99)), float("nan")),
    ],
)
def test_what_no_model_can_separate_is_an_audio_error(effect, audio, rate):
    with pytest.raises(AudioError):
        effect()(audio, rate)
