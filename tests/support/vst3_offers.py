"""What a server offered to the plugin before it stopped."""

from __future__ import annotations

import numpy as np

from bsmamba2.audio.array import Audio

LATENCY_MS = 100
STEM_BUSES = 8
OFFERS = f"""bsmamba2 offers 1
setup\tanything
model\tsmall\t0\t2\tvocals\tinstrumental
lookahead\t0\t{LATENCY_MS}
lookahead\t500\t200
model\tfour stems\t0\t4\tdrums\tbass\tother\tvocals\tinstrumental
lookahead\t0\t300
"""


def delayed(audio: Audio, latency: int) -> Audio:
    return np.pad(audio, ((0, 0), (latency, 0)))[:, : audio.shape[1]]
