"""Verifies that an exported file computes the same as the network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from bsmamba2.audio.array import Audio
from bsmamba2.audio.schedule import Schedule
from bsmamba2.audio.snr import IDENTICAL_DB, snr_db
from bsmamba2.audio.transforms import KINDS
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.step_engine import StepEngine
from bsmamba2.errors import ModelError
from bsmamba2.models.check import check_input
from bsmamba2_export.precision import MINIMUM_SNR_DB
from bsmamba2_export.trace import INPUTS
from bsmamba2_network import BSMamba2, HTDemucs
from bsmamba2_network.families import Network
from bsmamba2_network.spectrum import stft


def verify(
    engine: OrtEngine, net: Network, minimum_db: float = MINIMUM_SNR_DB["fp32"]
) -> dict[str, float]:
    """Compares an exported model with its network.

    Uses three inputs: one second of noise; audio shorter than half a window; and, for a spectrum
    graph, a batch of two spectra of a third length, to check that batch and length are dynamic. A
    graph of whole chunks gets a batch of two chunks, one of them mostly silent.

    Returns:
        The SNR in dB of each comparison, by name.

    Raises:
        ModelError: an SNR is below the minimum; the message lists all of them.
    """
    config = net.config
    second = check_input(1, config.channels, config.sample_rate)
    short = check_input(2, config.channels, config.n_fft // 3)
    if config.fixed_length:
        return _verify_chunks(engine, net, minimum_db)
    values_db = {
        "audio": agreement_db(second, _audio(net, second), engine.run(second)),
        "short_audio": agreement_db(short, _audio(net, short), engine.run(short)),
    }
    if engine.manifest.io == "spectrum":
        pair = np.stack([second, second[:, ::-1]])[..., : config.sample_rate // 3]
        spectra = stft(torch.from_numpy(pair.copy()), config.n_fft, config.hop)
        with torch.inference_mode():
            expected = net.separate_spectrum(spectra).numpy()
        actual = engine.run_spectrum(spectra.numpy())
        values_db["spectrum"] = agreement_db(spectra.numpy(), expected, actual)
    require(values_db, minimum_db)
    return values_db


def _verify_chunks(engine: OrtEngine, net: Network, minimum_db: float) -> dict[str, float]:
    """Compares a graph that takes only whole chunks; see :func:`verify`."""
    config = net.config
    whole = check_input(1, config.channels, config.chunk)
    short = check_input(2, config.channels, config.n_fft // 3)
    pair = np.stack([whole, np.pad(short, [(0, 0), (0, config.chunk - short.shape[-1])])])
    inputs = [KINDS[config.transform](config.n_fft, config.hop).analyse(pair)]
    if isinstance(net, HTDemucs):
        inputs.append(pair)
    tensors = [torch.from_numpy(value) for value in inputs]
    with torch.inference_mode():
        expected: tuple[Tensor, ...]
        if isinstance(net, HTDemucs):
            expected = net.separate_both(tensors[0], tensors[1])
        else:
            expected = (net.separate_spectrum(tensors[0]),)
    values_db = {"short_audio": agreement_db(short, _audio(net, short), engine.run(short))}
    for name, mixture, stems, actual in zip(
        INPUTS, inputs, expected, engine.run_graph(inputs), strict=False
    ):
        values_db[name] = agreement_db(mixture, stems.numpy(), actual)
    require(values_db, minimum_db)
    return {name: min(value, IDENTICAL_DB) for name, value in values_db.items()}


def compare(net: Network, other: Network) -> float:
    """Returns the SNR in dB between two networks' stems for a second of noise, at most a chunk."""
    config = net.config
    second = check_input(1, config.channels, min(config.sample_rate, config.chunk))
    return agreement_db(second, _audio(net, second), _audio(other, second))


def agreement_db(mixture: Audio, expected: Audio, actual: Audio) -> float:
    """Returns the SNR of the stems in dB, with their power taken as at least 1e-3 of the mixture's.

    On noise a trained network outputs near silence, whose relative error is meaningless. A manifest
    holds finite numbers, so for identical stems it is ``IDENTICAL_DB``.
    """
    value_db = snr_db(expected, actual)
    power, least = np.mean(np.square(expected)), 1e-3 * np.mean(np.square(mixture))
    if 0 < power < least:
        value_db += 10 * float(np.log10(least / power))
    return min(value_db, IDENTICAL_DB)


STEPS = {
    "steps": (Schedule(5, 3), 19),
    "steps_of_one_frame": (Schedule(1, 1), 4),
    "long_steps": (Schedule(66, 9), 80),  # longer than one segment of the scan
}
"""The schedule and number of frames of each test stream, with different block sizes."""


def verify_steps(
    engine: StepEngine, net: BSMamba2, minimum_db: float = MINIMUM_SNR_DB["fp32"]
) -> dict[str, float]:
    """Compares an exported streaming model with the steps of its network.

    Runs each stream as a batch of two, the second with its channels exchanged, to check that the
    batch is dynamic. All streams run on the same engine, to check that a reset clears its states.

    Returns and raises:
        The same as :func:`verify`.
    """
    values_db = {}
    for name, (schedule, frames) in STEPS.items():
        spectra = _spectra(net, frames)
        engine.reset()
        states = net.start()
        expected: list[Audio] = []
        actual: list[Audio] = []
        for step in schedule.steps(frames):
            block, lookahead = spectra[:, :, step.block], spectra[:, :, step.lookahead]
            with torch.inference_mode():
                first, second, states = net.step(block, lookahead, states)
            kept = 2 if step.last else 1
            expected += [first.numpy(), second.numpy()][:kept]
            actual += engine.step(block.numpy(), lookahead.numpy())[:kept]
        values_db[name] = agreement_db(
            spectra.numpy(), np.concatenate(expected, 3), np.concatenate(actual, 3)
        )
    require(values_db, minimum_db)
    return values_db


def _spectra(net: BSMamba2, frames: int) -> Tensor:
    """Returns the spectra of two mixtures of noise, (2, channels, frames, bins, 2)."""
    config = net.config
    noise = check_input(3, config.channels, frames * config.hop + config.n_fft)
    pair = torch.from_numpy(np.stack([noise, noise[::-1]]))
    return stft(pair, config.n_fft, config.hop)[:, :, :frames]


def require(values_db: Mapping[str, float], minimum_db: float) -> None:
    """Raises ModelError if an SNR is below the minimum."""
    if not all(value >= minimum_db for value in values_db.values()):
        figures = ", ".join(f"{name} {value:.1f} dB" for name, value in values_db.items())
        raise ModelError(
            f"the exported model must agree with the network to {minimum_db:.0f} dB; got "
            f"{figures}: it was deleted; report this"
        )


def _audio(net: Network, waveform: Audio) -> Audio:
    """Runs the network on one waveform, padded and normalised as the manifest would state."""
    config, samples = net.config, waveform.shape[-1]
    if config.fixed_length:
        waveform = np.pad(waveform, [(0, 0), (0, config.chunk - samples)])
    mean, deviation = 0.0, 1.0
    if config.normalize:
        mono = waveform.mean(axis=0)
        mean, deviation = float(mono.mean()), float(mono.std())
    normalised = torch.from_numpy((waveform - mean) / np.float32(deviation))
    with torch.inference_mode():
        stems: Audio = net(normalised[None])[0, ..., :samples].numpy()
    return stems * np.float32(deviation) + np.float32(mean)
