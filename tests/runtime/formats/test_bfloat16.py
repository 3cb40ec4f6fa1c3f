"""bfloat16 values widen to float32 exactly."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.formats.bfloat16 import STORED_DTYPE, widen_bfloat16


@given(st.lists(st.integers(0, 2**16 - 1)))
def test_the_bits_become_the_upper_half_of_a_float32(bits: list[int]) -> None:
    widened = widen_bfloat16(np.array(bits, STORED_DTYPE))
    assert widened.dtype == np.float32
    assert (widened.view(np.uint32) >> 16).tolist() == bits


def test_known_values_are_exact() -> None:
    bits = np.array([0x0000, 0x3F80, 0xC000, 0x3E20, 0x7F80], STORED_DTYPE)
    assert widen_bfloat16(bits).tolist() == [0, 1, -2, 0.15625, np.inf]
