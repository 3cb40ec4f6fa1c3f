"""Outputs of stems, enabled at random: python tests/campaigns/stem_buses.py [--sequences 1000]

A host renders with the plugin and a model of six stems and a residual. In each sequence all eight
outputs of stems are disabled, then enabled one after the other in random order, with a block of 1
to 40 random samples after each. A disabled output must be silent. After each sequence the outputs
must sum to the input, delayed by the latency. Writes results/stem_buses.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import vst3_abi as abi
from support import vst3_host as host
from support.engines import SIX, six_shares
from support.serving import serving

RESULTS = Path(__file__).parent / "results"
BUSES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=1000, help="Default: 1000.")
    parser.add_argument("--seed", type=int, default=0, help="Default: 0.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BSMAMBA2_SERVE_DIR"] = folder
        plugin = host.Plugin(host.bundle())
        error = run(plugin, arguments.sequences, arguments.seed)
        plugin.close()
    page = (
        "# Outputs of stems, enabled at random\n\n"
        f"In {arguments.sequences} random sequences the sum of the outputs differed from the "
        f"delayed input by at most {error:.1e}.\n\n"
        f"{datetime.date.today()}; `python tests/campaigns/stem_buses.py --sequences "
        f"{arguments.sequences} --seed {arguments.seed}`\n"
    )
    print(page)
    (RESULTS / "stem_buses.md").write_text(page)


def run(plugin: host.Plugin, sequences: int, seed: int) -> float:
    """Returns the largest difference between the sum of all outputs and the delayed input."""
    random = np.random.default_rng(seed)
    stems = range(1, 1 + BUSES)
    inputs, sums = [], []
    with serving(six_shares, chunk=2048, stems=SIX, residual="residual"):
        plugin.start()  # the latency is known from now on
        latency = plugin.start(mode=abi.OFFLINE)
        for _ in range(sequences):
            for index in stems:
                plugin.enable(index, on=False)
            enabled = set()
            for index in random.permutation(stems):
                plugin.enable(int(index))
                enabled.add(int(index))
                audio = random.uniform(-1, 1, (2, random.integers(1, 41))).astype(np.float32)
                outputs = plugin.process_buses(audio, 1 + BUSES, abi.OFFLINE)
                assert not outputs[list(set(stems) - enabled)].any(), "a disabled output has sound"
                inputs.append(audio)
            sums.append((sum(audio.shape[1] for audio in inputs), outputs[1:].sum(axis=0)))
    assert plugin.missed == 0
    delayed = np.pad(np.concatenate(inputs, axis=1), ((0, 0), (latency, 0)))
    assert delayed.shape[1] > 2 * latency, "too few sequences: the stems have not begun"
    errors = [np.abs(delayed[:, end - part.shape[1] : end] - part).max() for end, part in sums]
    return float(max(errors))


if __name__ == "__main__":
    main()
