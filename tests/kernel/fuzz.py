"""Random calls of the operators, most of them with one or two invalid inputs.

    python -m tests.kernel.fuzz LIBRARY [--calls 100000] [--seed 0]

Each call must return outputs of the right shapes or an error message, and must not crash.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime

from .scans import MIXER_INPUTS, Array, model, random_mixer, random_scan, session

NUMBERS = [0, 1, 2, 3, 5, 16, 63, 64, 65, 100]


def wrong_tensor(rng: np.random.Generator, tensor: Array) -> Array:
    """Returns another shape: one dimension resized, dropped or added, or all drawn again."""
    shape = list(tensor.shape)
    match rng.integers(4):
        case 0:
            shape[rng.integers(len(shape))] = rng.choice(NUMBERS)
        case 1:
            del shape[rng.integers(len(shape))]
        case 2:
            shape.insert(rng.integers(len(shape) + 1), rng.choice(NUMBERS[:4]))
        case _:
            shape = rng.choice(NUMBERS[:6], len(shape)).tolist()
    return rng.standard_normal(shape).astype(np.float32)


def wrong_values(rng: np.random.Generator, tensor: Array) -> Array:
    """Returns the same shape, with some values that no network has."""
    extreme = np.array([0, np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-45], np.float32)
    return np.where(rng.random(tensor.shape) < 0.1, rng.choice(extreme, tensor.shape), tensor)


def call(library: Path, rng: np.random.Generator) -> bool:
    """Makes one call. Returns whether it succeeded; False if it was refused with a message."""
    sizes = ("batch", "length", "heads", "head_dim", "state_size")
    drawn = [*rng.choice(NUMBERS, 2), *rng.choice(NUMBERS[1:7], 3)]
    make = random_mixer if rng.random() < 0.3 else random_scan
    scan = make(
        **{name: int(value) for name, value in zip(sizes, drawn, strict=True)},
        taps=int(rng.integers(2, 5)),
        seed=int(rng.integers(2**32)),
    )
    for name in rng.choice(list(scan.tensors), rng.integers(3), replace=False):
        spoil = wrong_tensor if rng.random() < 0.7 else wrong_values
        scan = scan.with_tensors(**{name: spoil(rng, scan[name])})
    attributes = {
        "head_dim": scan.head_dim if rng.random() < 0.9 else int(rng.integers(-2, 2**40)),
        "state_size": scan.state_size if rng.random() < 0.9 else int(rng.integers(-2, 70)),
        "reverse": int(rng.integers(0, 2)),
    }
    if make is random_mixer:
        proto = model(attributes, ("y",), name="mamba2_mixer", inputs=MIXER_INPUTS)
    else:
        proto = model(attributes)
    try:
        loaded = session(library, proto, threads=int(rng.integers(1, 4)))
        y, *states = loaded.run(None, scan.tensors)
    except Exception as refusal:
        if "mamba2_scan:" not in str(refusal) and "mamba2_mixer:" not in str(refusal):
            raise
        return False
    if make is random_mixer:
        assert y.shape == (*scan["u"].shape[:2], len(scan["out_weight"]))
        return True
    batch, length, _ = scan["zxbcdt"].shape
    assert y.shape == (batch, length, *scan["norm_weight"].shape)
    for name, state in zip(("conv_state", "ssm_state"), states, strict=True):
        assert state.shape == (batch, *scan[name].shape[1:])
    return True


def main() -> None:
    """Runs the campaign and prints its totals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    succeeded = 0
    for i in range(options.calls):
        succeeded += call(options.library, np.random.default_rng([options.seed, i]))
    refused = options.calls - succeeded
    print(f"{options.calls} calls: {succeeded} succeeded, {refused} refused.")
    print(f"onnxruntime {onnxruntime.__version__}.")


if __name__ == "__main__":
    main()
