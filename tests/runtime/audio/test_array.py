"""Which axis holds the channels, and which arrays are accepted as audio."""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2 import AudioError
from bsmamba2.audio.array import Layout, arrange, require_finite


@pytest.mark.parametrize(
    ("shape", "expected", "channels"),
    [
        ((9,), Layout.MONO, 1),
        ((0,), Layout.MONO, 1),
        ((2, 9), Layout.CHANNELS_FIRST, 2),
        ((9, 2), Layout.CHANNELS_LAST, 2),
        ((1, 9), Layout.CHANNELS_FIRST, 1),
        ((9, 1), Layout.CHANNELS_LAST, 1),
        ((1, 1), Layout.CHANNELS_FIRST, 1),
        ((2, 1), Layout.CHANNELS_LAST, 1),
        ((2, 0), Layout.CHANNELS_FIRST, 2),
        ((0, 2), Layout.CHANNELS_LAST, 2),
    ],
)
def test_the_smaller_dimension_holds_the_channels_and_the_layout_can_be_restored(
    shape: tuple[int, ...], expected: Layout, channels: int
) -> None:
    audio = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    arranged, layout = arrange(audio)
    assert (layout, arranged.shape[0]) == (expected, channels)
    np.testing.assert_array_equal(layout.restore(arranged), audio)


@pytest.mark.parametrize("shape", [(2, 2), (0, 0), (44100, 44100)])
def test_a_square_array_is_refused_as_ambiguous(shape: tuple[int, int]) -> None:
    with pytest.raises(AudioError, match="append a sample of silence"):
        arrange(np.broadcast_to(np.float32(0), shape))


@pytest.mark.parametrize("shape", [(), (1, 2, 9)])
def test_other_numbers_of_dimensions_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match=r"audio must be \(samples,\)"):
        arrange(np.zeros(shape))


@pytest.mark.parametrize(
    ("dtype", "fix"),
    [
        ("int16", "audio / 32768"),
        ("int32", "audio / 2147483648"),
        ("uint8", "(audio - 128.0) / 128"),
        ("float16", "audio.astype(numpy.float32)"),
        ("complex64", "audio.astype(numpy.float32)"),
        ("bool", "audio.astype(numpy.float32)"),
    ],
)
def test_other_types_are_refused_with_the_expression_that_converts_them(
    dtype: str, fix: str
) -> None:
    with pytest.raises(AudioError) as error:
        arrange(np.zeros(9, dtype))
    assert f"got {dtype}" in str(error.value)
    assert str(error.value).endswith(fix)


def test_float64_and_foreign_byte_order_are_converted_to_float32() -> None:
    for dtype in (np.float64, ">f4", ">f8"):
        arranged, _ = arrange(np.ones(9, dtype))
        assert arranged.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_sample_that_is_not_finite_is_named(value: float) -> None:
    audio = np.zeros((2, 100))
    audio[1, 50:] = value
    with pytest.raises(AudioError, match=rf"channel 2 is {value} at 1\.500000 s"):
        require_finite(audio, 100, start=100)
