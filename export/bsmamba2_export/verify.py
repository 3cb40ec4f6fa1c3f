"""The proof that an exported file computes what the network computes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from bsmamba2.audio.array import Audio
from bsmamba2.audio.schedule import Schedule
from bsmamba2.audio.snr import snr_db
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.step_engine import StepEngine
from bsmamba2.errors import ModelError
from bsmamba2.models.check import check_input
from bsmamba2_export.precision import MINIMUM_SNR_DB
from bsmamba2_network import BSMamba2
from bsmamba2_network.spectrum import stft

IDENTICAL_DB = 999.0
"""Stands for equality to the bit, whose SNR is infinite."""


def verify(
    engine: OrtEngine, net: BSMamba2, minimum_db: float = MINIMUM_SNR_DB["fp32"]
) -> dict[str, float]:
    """Compares an artifact with the network it came from.

    Three inputs: a second of noise, as audio; fewer samples than half a window, as audio; and for
    a graph from spectrum to spectrum, the spectra of two signals of another length at once, so
    that batch and length are seen to be dynamic.

    Returns:
        SNR in dB by the comparison's name.

    Raises:
        ModelError: one of them is below the minimum; the message holds all.
    """
    config = net.config
    second = check_input(1, config.channels, config.sample_rate)
    short = check_input(2, config.channels, config.n_fft // 3)
    found = {
        "audio": agreement_db(second, _audio(net, second), engine.run(second)),
        "short_audio": agreement_db(short, _audio(net, short), engine.run(short)),
    }
    if engine.manifest.io == "spectrum":
        pair = np.stack([second, second[:, ::-1]])[..., : config.sample_rate // 3]
        spectra = stft(torch.from_numpy(pair.copy()), config.n_fft, config.hop)
        with torch.inference_mode():
            wanted = net.separate_spectrum(spectra).numpy()
        came = engine.run_spectrum(spectra.numpy())
        found["spectrum"] = agreement_db(spectra.numpy(), wanted, came)
    require(found, minimum_db)
    return {name: min(value, IDENTICAL_DB) for name, value in found.items()}


def compare(net: BSMamba2, other: BSMamba2) -> float:
    """SNR in dB of one network's stems of a second of noise against another's."""
    second = check_input(1, net.config.channels, net.config.sample_rate)
    return agreement_db(second, _audio(net, second), _audio(other, second))


def agreement_db(mixture: Audio, wanted: Audio, came: Audio) -> float:
    """SNR in dB of stems, where those that are all but silent count as 30 dB below the mixture.

    A trained network makes next to nothing of noise, and what is nothing has no relative error.
    """
    found = snr_db(wanted, came)
    stems, least = np.mean(np.square(wanted)), 1e-3 * np.mean(np.square(mixture))
    return found + 10 * float(np.log10(least / stems)) if 0 < stems < least else found


STEPS = {
    "steps": (Schedule(5, 3), 19),
    "steps_of_one_frame": (Schedule(1, 1), 4),
    "long_steps": (Schedule(66, 9), 80),  # of more than one chunk of the scan
}
"""Schedules and frames of a stream; each ends with the step that keeps its lookahead."""


def verify_steps(
    engine: StepEngine, net: BSMamba2, minimum_db: float = MINIMUM_SNR_DB["fp32"]
) -> dict[str, float]:
    """Compares a streaming artifact with the steps of the network it came from.

    Each stream runs twice at once, the second copy with its channels exchanged, so that the batch
    is seen to be dynamic; and after another stream, so that a reset is seen to forget it.

    Returns and raises:
        As :func:`verify`.
    """
    found = {}
    for name, (schedule, frames) in STEPS.items():
        spectra = _spectra(net, frames)
        engine.reset()
        states = net.start()
        wanted: list[Audio] = []
        came: list[Audio] = []
        for step in schedule.steps(frames):
            block, lookahead = spectra[:, :, step.block], spectra[:, :, step.lookahead]
            with torch.inference_mode():
                first, second, states = net.step(block, lookahead, states)
            kept = 2 if step.last else 1
            wanted += [first.numpy(), second.numpy()][:kept]
            came += engine.step(block.numpy(), lookahead.numpy())[:kept]
        found[name] = agreement_db(
            spectra.numpy(), np.concatenate(wanted, 3), np.concatenate(came, 3)
        )
    require(found, minimum_db)
    return {name: min(value, IDENTICAL_DB) for name, value in found.items()}


def _spectra(net: BSMamba2, frames: int) -> Tensor:
    """Two mixtures of noise, (2, channels, frames, bins, 2)."""
    config = net.config
    noise = check_input(3, config.channels, frames * config.hop + config.n_fft)
    pair = torch.from_numpy(np.stack([noise, noise[::-1]]))
    return stft(pair, config.n_fft, config.hop)[:, :, :frames]


def require(found: Mapping[str, float], minimum_db: float) -> None:
    """Raises ModelError where an SNR is below the minimum."""
    if not all(value >= minimum_db for value in found.values()):
        figures = ", ".join(f"{name} {value:.1f} dB" for name, value in found.items())
        raise ModelError(
            f"the exported model does not agree with the network ({figures}; at least "
            f"{minimum_db:.0f} dB wanted) and was deleted; report this"
        )


def _audio(net: BSMamba2, waveform: Audio) -> Audio:
    with torch.inference_mode():
        stems: Audio = net(torch.from_numpy(waveform)[None])[0].numpy()
    return stems
