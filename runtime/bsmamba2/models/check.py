"""The check: one second of noise through a model, which every device must reproduce."""

from __future__ import annotations

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.audio.schedule import Schedule
from bsmamba2.audio.snr import snr_db
from bsmamba2.engines.protocols import Engine
from bsmamba2.errors import DeviceError
from bsmamba2.formats.manifest import Check

SNR_DB = 60.0
"""The SNR that another device or version must reach. Rounding in float32 passes, faults do not."""

FAST_SNR_DB = 20.0
"""The SNR that the speed ``fast`` must reach. Its products lose quality; faults lose all of it."""

CHECK_STEPS = Schedule(block=66, lookahead=9)
"""The steps in which a streaming model runs the second of noise: the first block is longer than a
segment of the scan (64 time steps), and later steps need the states after it."""


def check_input(seed: int, channels: int, samples: int) -> Audio:
    """Returns uniform noise in [−0.5, 0.5), (channels, samples), the same on every machine.

    It uses the raw bits of a Philox generator, which, unlike distributions, are the same in every
    version of NumPy.
    """
    bits = np.random.Philox(seed).random_raw(channels * samples)
    top = (bits >> np.uint64(40)).astype(np.float32)  # 24 bits: exact in float32
    return (top / 2**24 - 0.5).astype(np.float32).reshape(channels, samples)


def make_check(engine: Engine, snr_db: float = SNR_DB, seed: int = 0, stride: int = 20) -> Check:
    """Runs a second of noise and keeps every ``stride``-th sample of the output.

    A model that takes only whole chunks gets at most one.
    """
    manifest = engine.manifest
    samples = manifest.sample_rate
    if manifest.fixed_length:
        samples = min(samples, manifest.chunk)
    expected = engine.run(check_input(seed, manifest.channels, samples)).reshape(-1)[::stride]
    return Check(seed, samples, stride, snr_db, expected.copy())


def reproduce(engine: Engine, least_db: float | None = None) -> float:
    """Runs the model's check on this engine and returns the SNR in dB.

    Args:
        engine: the model on its device.
        least_db: the SNR that it must reach. Default: the check's own.

    Raises:
        DeviceError: the output differs from that of the export, or the model carries no check.
    """
    check = engine.manifest.check
    if check is None:
        raise DeviceError(f"{engine.manifest.name} carries no check: export it again")
    noise = check_input(check.seed, engine.manifest.channels, check.samples)
    found = snr_db(check.expected, engine.run(noise).reshape(-1)[:: check.stride])
    least_db = check.snr_db if least_db is None else least_db
    if not found >= least_db:
        raise DeviceError(
            f"{engine.manifest.name} on {engine.device} does not reproduce its check: the SNR must "
            f"be at least {least_db:.0f} dB; got {found:.1f} dB: use another device, and "
            "report this one"
        )
    return found
