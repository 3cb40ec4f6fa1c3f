"""The mixer is its two products and the scan between them, however it is cut into tiles."""

from __future__ import annotations

import re

import numpy as np
import pytest

from .scans import mixed, random_mixer, snr_db


@pytest.mark.parametrize("states", [None, 0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize(
    ("batch", "length"), [(1, 1), (1, 2500), (5, 700), (70, 62), (3, 0), (0, 5)]
)
def test_a_mixer_is_its_products_around_a_scan(run, batch, length, reverse, states):
    mixer = random_mixer(batch=batch, length=length, reverse=reverse, states=states)
    assert snr_db(mixed(mixer), run(mixer)[0]) >= 100


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_any_number_of_threads_gives_a_mixer_the_same_bits(run, threads):
    mixer = random_mixer(batch=7, length=700)
    np.testing.assert_array_equal(run(mixer, threads=1)[0], run(mixer, threads=threads)[0])


def test_a_sequence_does_not_know_which_tile_it_is_in(run):
    mixer = random_mixer(batch=9, length=700, states=1)
    alone = run(mixer.but(u=mixer["u"][7:8]))[0]
    np.testing.assert_array_equal(alone[0], run(mixer)[0][7])


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("u", (70, 24), "u must have 3 dimensions; got 2"),
        ("u", (2, 70, 23), "in_weight must have the shape (50, 23); got (50, 24)"),
        ("in_weight", (49, 24), "in_weight must have the shape (50, 24); got (49, 24)"),
        ("in_weight", (50,), "in_weight must have 2 dimensions; got 1"),
        ("u", (2, 70, 0), "u must have at least one column"),
        ("out_weight", (0, 16), "out_weight must have at least one row"),
        ("out_weight", (24, 17), "out_weight must have the shape (24, 16); got (24, 17)"),
        ("norm_weight", (17,), "norm_weight must have the shape (16); got (17)"),
        ("ssm_state", (3, 2, 8, 8), "ssm_state must have the shape (1 or 2, 2, 8, 8)"),
    ],
)
def test_a_tensor_that_does_not_fit_a_mixer_is_refused_by_name(run, name, shape, sentence):
    with pytest.raises(Exception, match=re.escape(f"mamba2_mixer: {sentence}")):
        run(random_mixer().but(**{name: np.zeros(shape, np.float32)}))
