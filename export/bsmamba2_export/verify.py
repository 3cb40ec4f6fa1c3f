"""The proof that an exported file computes what the network computes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from bsmamba2.array import Audio
from bsmamba2.check import check_input, snr_db
from bsmamba2.errors import ModelError
from bsmamba2.ort_engine import OrtEngine
from bsmamba2_network import BSMamba2
from bsmamba2_network.spectrum import stft

MINIMUM_SNR_DB = 90.0
"""What float32 has to reach; the network itself and ONNX Runtime round differently at ~115 dB."""

IDENTICAL_DB = 999.0
"""Stands for equality to the bit, whose SNR is infinite."""


def verify(engine: OrtEngine, net: BSMamba2) -> dict[str, float]:
    """Compares an artifact with the network it came from.

    Three inputs: a second of noise, as audio; fewer samples than half a window, as audio; and for
    a graph from spectrum to spectrum, the spectra of two signals of another length at once, so
    that batch and length are seen to be dynamic.

    Returns:
        SNR in dB by the comparison's name.

    Raises:
        ModelError: one of them is below 90 dB; the message holds all.
    """
    config = net.config
    second = check_input(1, config.channels, config.sample_rate)
    short = check_input(2, config.channels, config.n_fft // 3)
    found = {
        "audio": snr_db(_audio(net, second), engine.run(second)),
        "short_audio": snr_db(_audio(net, short), engine.run(short)),
    }
    if engine.manifest.io == "spectrum":
        pair = np.stack([second, second[:, ::-1]])[..., : config.sample_rate // 3]
        spectra = stft(torch.from_numpy(pair.copy()), config.n_fft, config.hop)
        with torch.inference_mode():
            wanted = net.separate_spectrum(spectra).numpy()
        found["spectrum"] = snr_db(wanted, engine.run_spectrum(spectra.numpy()))
    require(found, MINIMUM_SNR_DB)
    return {name: min(value, IDENTICAL_DB) for name, value in found.items()}


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
