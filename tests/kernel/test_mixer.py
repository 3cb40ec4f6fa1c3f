"""The mixer equals its two products and the scan between them, for any tiling."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .scans import Run, mixer_reference, random_mixer, snr_db


@pytest.mark.parametrize("states", [None, 0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize(
    ("batch", "length"), [(1, 1), (1, 2500), (5, 700), (70, 62), (3, 0), (0, 5)]
)
def test_a_mixer_equals_its_products_and_the_scan(
    run: Run, batch: int, length: int, reverse: int, states: int | None
) -> None:
    mixer = random_mixer(batch=batch, length=length, reverse=reverse, states=states)
    assert snr_db(mixer_reference(mixer), run(mixer)[0]) >= 100


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_a_mixer_has_the_same_bits_for_any_number_of_threads(run: Run, threads: int) -> None:
    mixer = random_mixer(batch=7, length=700)
    np.testing.assert_array_equal(run(mixer, threads=1)[0], run(mixer, threads=threads)[0])


def test_a_sequence_does_not_depend_on_its_tile(run: Run) -> None:
    mixer = random_mixer(batch=9, length=700, states=1)
    alone = run(mixer.with_tensors(u=mixer["u"][7:8]))[0]
    np.testing.assert_array_equal(alone[0], run(mixer)[0][7])


PRODUCTS = """
from pathlib import Path
import numpy as np
from tests.kernel import scans
constants = "in_weight", "out_weight"
for sizes in ({{"batch": 7, "length": 700}}, {{"batch": 70, "length": 62, "reverse": 1}}):
    mixer = scans.random_mixer(**sizes)
    one, many = (scans.run(Path("{}"), mixer, n, constants=constants)[0] for n in (1, 3))
    np.testing.assert_array_equal(one, many)
    alone = mixer.with_tensors(u=mixer["u"][5:6], **{{
        name: mixer[name][5:6] for name in ("conv_state", "ssm_state")}})
    np.testing.assert_array_equal(scans.run(Path("{}"), alone, constants=constants)[0][0], one[5])
    print(scans.snr_db(scans.mixer_reference(mixer), one))
"""


@pytest.mark.parametrize(
    ("products", "least_db", "most_db"),
    [("float32", 115, 200), ("bf16x3", 95, 115), ("bf16", 40, 65), ("int8", 28, 55)],
)
def test_constant_weights_are_multiplied_with_the_products_of_the_session(
    python: Callable[..., subprocess.CompletedProcess[str]],
    library: Path,
    products: str,
    least_db: float,
    most_db: float,
) -> None:
    """The bits depend neither on the threads nor on the other sequences."""
    done = python("-c", PRODUCTS.format(library, library), BSMAMBA2_PRODUCTS=products)
    assert done.returncode == 0, done.stderr
    agreements = [float(line) for line in done.stdout.split()]
    assert all(least_db <= agreement <= most_db for agreement in agreements), agreements


@pytest.mark.parametrize(
    ("name", "shape", "message"),
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
def test_an_invalid_tensor_of_a_mixer_is_refused_by_name(
    run: Run, name: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(Exception, match=re.escape(f"mamba2_mixer: {message}")):
        run(random_mixer().with_tensors(**{name: np.zeros(shape, np.float32)}))
