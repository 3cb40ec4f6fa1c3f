"""The products of each instruction set agree with float64; those of this machine with the portable
ones too."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.audio.array import Audio
from bsmamba2.devices import kernel
from bsmamba2.models.check import check_input

from .products import KINDS, describe, product, product_sets
from .scans import Array, snr_db

# The SNR of one product of random values must reach this.
LEAST_DB = {"bf16x3": 100, "bf16": 50, "int8": 36}
SETS = ["amx", "avx512_bf16", "avx512_vnni", "avx_vnni", "portable"]
SIZES = st.integers(1, 140)

SEPARATE = """
import numpy as np
from bsmamba2 import Separator
from bsmamba2.models.check import check_input
separator = Separator(device="cpu", speed="{}")
print(separator.products)
np.save("{}", separator(check_input(1, 2, 44100), 44100)["vocals"])
"""

Multiply = Callable[..., Audio]


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session", params=SETS)
def multiply(request: pytest.FixtureRequest, library: Path, kind: str) -> Multiply:
    """``multiply(a, weights, threads=1)``, with each instruction set that has this kind."""
    instructions = str(request.param)
    if instructions not in product_sets(library):
        pytest.skip(f"this machine does not have {instructions}")

    def run(a: Audio, weights: Audio, threads: int = 1) -> Audio:
        out = product(library, instructions, kind, a, weights, threads)
        assert out is not None
        return out

    if product(library, instructions, kind, *random(1, 1, 1)) is None:
        pytest.skip(f"{instructions} has no products of the kind {kind}")
    return run


def random(rows: int, columns: int, width: int, seed: int = 0) -> tuple[Audio, Audio]:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((rows, width)).astype(np.float32)
    return a, rng.standard_normal((columns, width)).astype(np.float32)


def in_float64(a: Audio, weights: Audio) -> Array:
    out: Array = a.astype(np.float64) @ weights.astype(np.float64).T
    return out


@pytest.mark.parametrize("shape", [(130, 2320, 256), (70, 256, 1024)])
def test_a_product_of_random_values_agrees_with_float64(
    multiply: Multiply, kind: str, shape: tuple[int, int, int]
) -> None:
    a, weights = random(*shape)
    assert snr_db(in_float64(a, weights), multiply(a, weights)) >= LEAST_DB[kind]


@given(rows=SIZES, columns=SIZES, width=SIZES, seed=st.integers(0, 99))
def test_any_shape_agrees_with_float64(
    multiply: Multiply, kind: str, rows: int, columns: int, width: int, seed: int
) -> None:
    """A few values can cancel, so the error is compared with the sizes of the factors."""
    a, weights = random(rows, columns, width, seed)
    error = np.abs(multiply(a, weights) - in_float64(a, weights)).max(initial=0)
    sizes = np.linalg.norm(a, axis=1).max() * np.linalg.norm(weights, axis=1).max()
    assert error <= sizes * {"bf16x3": 2.0**-15, "bf16": 2.0**-7, "int8": 2.0**-5}[kind]


@given(
    rows=SIZES, columns=SIZES, width=st.integers(1, 100), seed=st.integers(0, 99),
    threads=st.integers(2, 5),
)  # fmt: skip
def test_the_bits_depend_neither_on_threads_nor_on_the_other_rows_and_columns(
    multiply: Multiply, rows: int, columns: int, width: int, seed: int, threads: int
) -> None:
    a, weights = random(rows + 128, columns, width, seed)
    whole = multiply(a, weights)
    np.testing.assert_array_equal(multiply(a, weights, threads), whole)
    np.testing.assert_array_equal(multiply(a[rows:], weights), whole[rows:])
    np.testing.assert_array_equal(multiply(a, weights[columns // 2 :]), whole[:, columns // 2 :])


@given(rows=SIZES, columns=SIZES, width=st.integers(1, 64), seed=st.integers(0, 99))
def test_integers_have_the_bits_of_the_portable_products(
    library: Path, kind: str, multiply: Multiply, rows: int, columns: int, width: int, seed: int
) -> None:
    """Their sums are exact in every order."""
    a, weights = (np.round(30 * matrix) for matrix in random(rows, columns, width, seed))
    expected = product(library, "portable", kind, a, weights)
    np.testing.assert_array_equal(multiply(a, weights), expected)


def test_zeros_give_zeros(multiply: Multiply) -> None:
    a, weights = random(20, 20, 40)
    a[3], weights[5] = 0, 0
    out = multiply(a, weights)
    assert not out[3].any()
    assert not out[:, 5].any()
    assert out[4, 4]


@pytest.mark.parametrize("size", [1e-42, 1e-38, 1e-20, 1e20])
def test_small_and_large_values_keep_their_scale(multiply: Multiply, size: float) -> None:
    """Denormal values may count as zero."""
    a, weights = random(20, 20, 64)
    out = multiply(a * np.float32(size), weights)
    expected = in_float64(a * np.float32(size), weights)
    assert np.abs(out - expected).max() <= 2.0**-5 * np.abs(expected).max() + 1e-33
    assert np.isfinite(out).all()


def test_the_largest_values_do_not_become_infinite(multiply: Multiply) -> None:
    largest = np.finfo(np.float32).max
    a, weights = np.full((2, 8), largest), np.full((2, 8), 0.1, np.float32)
    np.testing.assert_allclose(multiply(a, weights), largest * 0.8, rtol=0.02)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([np.inf], [np.inf, -np.inf]),
        ([-np.inf], [-np.inf, np.inf]),
        ([np.nan], [np.nan, np.nan]),
        ([np.inf, np.inf], [np.inf, np.nan]),
        ([np.inf, np.nan], [np.nan, np.nan]),
    ],
)
def test_a_row_that_is_not_finite_gives_what_float32_gives(
    multiply: Multiply, values: list[float], expected: list[float]
) -> None:
    a, weights = random(40, 2, 70)
    weights[:, :2] = [[1, 2], [-1, 1]]
    clean = multiply(a, weights)
    a[17, : len(values)] = values
    out = multiply(a, weights)
    np.testing.assert_array_equal(out[17], expected)
    np.testing.assert_array_equal(np.delete(out, 17, 0), np.delete(clean, 17, 0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_left_to_float32(
    library: Path, kind: str, bad: float
) -> None:
    a, weights = random(2, 2, 8)
    weights[1, 3] = bad
    assert product(library, "portable", kind, a, weights) is None


def test_each_speed_uses_float32_or_an_instruction_set_of_this_machine(library: Path) -> None:
    known = product_sets(library)[:-1]
    exact, fast = describe(library, "exact"), describe(library, "fast")
    assert exact == ("bf16x3 (amx)" if "amx" in known else "float32")
    best = next((name for name in known), None)
    kind = "bf16" if best in ("amx", "avx512_bf16") else "int8"
    assert fast == (f"{kind} ({best})" if best else "float32")


@pytest.fixture(scope="session")
def separate_noise(
    python: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str], Audio]:
    """``separate_noise(speed, products)`` runs the shipped model with these products."""

    def run(speed: str, products: str) -> Audio:
        out = tmp_path_factory.mktemp(products) / "vocals.npy"
        done = python("-c", SEPARATE.format(speed, out), BSMAMBA2_PRODUCTS=products)
        assert done.stdout.startswith(products), done.stderr
        stem: Audio = np.load(out)
        return stem

    return run


@pytest.mark.skipif(kernel.library() is None, reason="the kernel is not installed")
def test_the_shipped_model_has_float32_s_result_at_the_exact_speed(
    separate_noise: Callable[[str, str], Audio],
) -> None:
    """The vocals of noise are 60 dB below it or more, so errors are compared with the noise."""
    expected, noise = separate_noise("exact", "float32"), check_input(1, 2, 44100)
    below_noise_db = snr_db(noise, noise - expected)
    least_db = {("exact", "bf16x3"): 155, ("fast", "bf16"): 95, ("fast", "int8"): 82}
    for (speed, kind), least in least_db.items():
        assert snr_db(expected, separate_noise(speed, kind)) + below_noise_db >= least


@pytest.mark.skipif(kernel.library() is None, reason="the kernel is not installed")
def test_products_that_are_too_inexact_fail_the_model_s_check_at_the_exact_speed(
    python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    program = SEPARATE.format("exact", tmp_path / "vocals.npy")
    done = python("-c", program, BSMAMBA2_PRODUCTS="bf16", BSMAMBA2_CACHE=str(tmp_path))
    assert "does not reproduce its check: the SNR must be at least 60 dB" in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_products_can_be_forced_for_tests(
    python: Callable[..., subprocess.CompletedProcess[str]], library: Path, kind: str
) -> None:
    program = (
        "import ctypes; from pathlib import Path; from tests.kernel.products import describe; "
        f"print(describe(Path('{library}'), 'exact'))"
    )
    for name, expected in ((kind, kind), ("float32", "float32"), ("x", "BSMAMBA2_PRODUCTS must")):
        done = python("-c", program, BSMAMBA2_PRODUCTS=name)
        assert done.stdout.startswith(expected), done.stderr


@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_a_lower_instruction_set_has_no_products_above_it(
    python: Callable[..., subprocess.CompletedProcess[str]], library: Path, isa: str
) -> None:
    program = (
        "from pathlib import Path; from tests.kernel.products import product_sets; "
        f"print(*product_sets(Path('{library}')))"
    )
    done = python("-c", program, BSMAMBA2_ISA=isa)
    if done.returncode:
        pytest.skip(f"this machine does not support {isa}")
    allowed = {"portable"} if isa == "portable" else {"portable", "avx_vnni"}
    assert set(done.stdout.split()) <= allowed, done.stderr
