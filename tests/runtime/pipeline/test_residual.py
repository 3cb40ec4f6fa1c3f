"""The residual is what the stems leave of the mixture, to the bit on an integer grid."""

from __future__ import annotations

import numpy as np

from bsmamba2.pipeline.residual import compute_residual, on_grid


def test_a_residual_on_a_grid_is_the_rounded_mixture_minus_the_stems() -> None:
    mixture, stems = np.array([[0.3, -0.3]]), np.array([[[0.25, 0.5]]])
    np.testing.assert_array_equal(compute_residual(mixture, stems, 0.25), [[0.0, -0.75]])
    np.testing.assert_array_equal(compute_residual(mixture, stems, 0), mixture - stems[0])


def test_samples_on_a_grid_are_its_multiples() -> None:
    rounded = on_grid(np.array([[0.3, -0.6, 0.5]]), 0.25)
    np.testing.assert_array_equal(rounded, [[0.25, -0.5, 0.5]])
