"""Our effects and Pedalboard's Gain on the same inputs: shapes, types, errors and layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pedalboard import Gain, LowpassFilter, Pedalboard
from pedalboard_native._internal import AddLatency

from bsmamba2 import AudioError
from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard import Board, Separate, SeparationEffect
from bsmamba2_pedalboard.contract import Effect
from support.engines import StubEngine

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


def outcome(effect: Callable[..., Any], *arguments: Any) -> Any:
    """Returns the output's shape, type and memory order, or the built-in type of the error."""
    try:
        output = effect(*arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        return next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
    return output.shape, output.dtype, output.flags.c_contiguous


@pytest.fixture(params=["SeparationEffect", "Board", "empty Board", "nested Board"])
def ours(request: pytest.FixtureRequest, effect: Callable[..., SeparationEffect]) -> Effect:
    kinds: dict[str, Callable[[], Effect]] = {
        "SeparationEffect": effect,
        "Board": lambda: Board([Gain(6), effect(), Gain(-6)]),
        "empty Board": Board,
        "nested Board": lambda: Board([Board([Gain(0)]), Board([effect()])]),
    }
    return kinds[request.param]()


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shape", SHAPES + IMPOSSIBLE)
def test_shapes_and_errors_equal_pedalboards(
    ours: Effect, noise: Callable[..., Audio], shape: tuple[int, ...], rate: int
) -> None:
    assert outcome(ours, noise(*shape), rate) == outcome(Gain(0), noise(*shape), rate)


@pytest.fixture(scope="module")
def native(engine: Callable[..., StubEngine]) -> Separate:
    return Separate(engine())


@pytest.mark.parametrize(("rate", "size"), [*zip(RATES, SIZES, strict=True)])
def test_native_plugin_has_the_same_shapes_and_errors(
    native: Separate, noise: Callable[..., Audio], rate: Any, size: Any
) -> None:
    for shape in SHAPES[:-2] + IMPOSSIBLE:  # it does not accept six channels
        native.reset()
        audio = noise(*shape)
        assert outcome(native, audio, rate, size) == outcome(Gain(0), audio, rate, size), shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_native_plugin_accepts_the_sample_types_that_gain_accepts(
    native: Separate, dtype: str
) -> None:
    audio = np.zeros((2, 99)).astype(dtype)
    assert outcome(native, audio, 44100) == outcome(Gain(0), audio, 44100)


@pytest.mark.parametrize("shape", [(700,), (1, 700), (2, 700), (700, 2)])
@pytest.mark.parametrize("rate", RATES)
def test_stream_output_sizes_equal_a_native_plugins_with_the_same_latency(
    native: Separate,
    effect: Callable[..., SeparationEffect],
    noise: Callable[..., Audio],
    shape: tuple[int, ...],
    rate: Any,
) -> None:
    effects: list[Any] = [effect(), native]
    for ours in effects:
        ours.reset()
        latency: int = getattr(ours, "effect", ours).latency_at(rate)
        late, audio = AddLatency(latency), noise(*shape)
        for size in [500] * (latency // 700 + 3):
            given = (audio, rate, size, False)
            assert outcome(ours, *given) == outcome(late, *given)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sample_types_equal_pedalboards(ours: Effect, dtype: str) -> None:
    audio = np.zeros((2, 99)).astype(dtype)
    assert outcome(ours, audio, 44100) == outcome(Gain(0), audio, 44100)


@pytest.mark.parametrize("audio", [[0.1, 0.2], None, 1.0, "song.wav"])
def test_non_array_is_a_type_error(ours: Effect, audio: Any) -> None:
    assert outcome(ours, audio, 44100) is outcome(Gain(0), audio, 44100) is TypeError


@pytest.mark.parametrize("rate", ["44100", None, np.float32(44100), np.int64(44100), 44100.0])
def test_sample_rate_types_equal_pedalboards(
    ours: Effect, noise: Callable[..., Audio], rate: Any
) -> None:
    assert outcome(ours, noise(2, 99), rate) == outcome(Gain(0), noise(2, 99), rate)


@pytest.mark.parametrize("size", [1, 7, np.int64(64), 8192, 100_000, 1.5, "64", None])
def test_buffer_size_types_equal_pedalboards(
    ours: Effect, noise: Callable[..., Audio], size: Any
) -> None:
    assert outcome(ours, noise(2, 99), 44100, size) == outcome(Gain(0), noise(2, 99), 44100, size)


@pytest.mark.parametrize("size", [0, -1])
def test_buffer_size_below_one_is_refused_instead_of_hanging(
    ours: Effect, noise: Callable[..., Audio], size: int
) -> None:
    with pytest.raises(ValueError, match="buffer_size must be 1 sample or more"):
        ours(noise(2, 99), 44100, size)


@given(size=st.integers(1, 100_000), samples=st.integers(0, 300))
def test_output_does_not_depend_on_buffer_size(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio], size: Any, samples: int
) -> None:
    board = Board([LowpassFilter(2000), effect(0.5)])
    audio = noise(2, samples + 3)
    np.testing.assert_allclose(board(audio, 44100, size), board(audio, 44100), rtol=0, atol=1e-6)


def test_argument_names_equal_pedalboards(ours: Effect, noise: Callable[..., Audio]) -> None:
    audio = noise(2, 99)
    named = ours.process(input_array=audio, sample_rate=44100, buffer_size=64, reset=True)
    np.testing.assert_array_equal(named, ours(audio, 44100, 64, True))


@pytest.mark.parametrize("shape", [(99,), (2, 99), (99, 2), (1, 99)])
def test_input_is_not_changed_or_returned(
    ours: Effect, noise: Callable[..., Audio], shape: tuple[int, ...]
) -> None:
    audio = noise(*shape)
    output = ours(audio, 44100)
    output[:] = 9
    np.testing.assert_array_equal(audio, noise(*shape))


@pytest.mark.parametrize(
    "view", [lambda a: a[:, ::2], lambda a: a[::-1], lambda a: a.T, np.asfortranarray]
)
def test_views_with_any_strides_are_read_correctly(
    ours: Effect, noise: Callable[..., Audio], view: Callable[[Audio], Audio]
) -> None:
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


def _filtered_ones(plugin: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Filters ones with a lowpass; the output rises along the axis that was read as time."""
    try:
        output: npt.NDArray[Any] = plugin(np.ones(shape, np.float32), 44100)
        return output
    except RuntimeError:
        return np.array("refused")


@given(st.lists(shapes, min_size=1, max_size=6))
@example([(50,), (3, 3), (0, 0), (1, 3)])  # an array without channels does not change their number
@example([(50, 2), (1, 1), (3, 3)])  # but one sample determines the orientation
def test_earlier_arrays_determine_the_layout_as_in_pedalboard(
    history: list[tuple[int, ...]],
) -> None:
    native, ours = Pedalboard([LowpassFilter(100)]), Board([LowpassFilter(100)])
    for shape in history:
        np.testing.assert_array_equal(_filtered_ones(ours, shape), _filtered_ones(native, shape))


def test_reset_forgets_the_layout(ours: Effect, noise: Callable[..., Audio]) -> None:
    ours(noise(2, 99), 44100)
    assert ours(noise(2, 2), 44100).shape == (2, 2)
    ours.reset()
    with pytest.raises(RuntimeError, match="could be"):
        ours(noise(2, 2), 44100)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_last_block_with_fewer_samples_than_channels_stays_stereo(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio], samples: int
) -> None:
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
def test_audio_that_no_model_can_separate_is_an_audio_error(
    effect: Callable[..., SeparationEffect], audio: Any, rate: Any
) -> None:
    with pytest.raises(AudioError):
        effect()(audio, rate)
