"""The training loop: mixes items, runs optimiser steps and logs the curve; can stop and resume."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bsmamba2.audio.schedule import Schedule
from bsmamba2.errors import AudioError
from bsmamba2_network import BSMamba2, native, spectrum
from bsmamba2_training.layout import Song, training_pools, validation_songs
from bsmamba2_training.loss import sdr_loss, separation_loss, silence_loss
from bsmamba2_training.metrics import leakage_db, level_db, usdr_db
from bsmamba2_training.mixing import Mixing, Mixtures
from bsmamba2_training.run import VALIDATION, Run

Report = Callable[[int, int, str], None]
"""Called after each step with its number, the total number of steps, and a line of figures."""


def train(
    run: Run,
    dataset: Path,
    *,
    minutes: float | None = None,
    save_every_s: float = 120.0,
    workers: int = 0,
    report: Report | None = None,
) -> bool:
    """Continues a run until its plan is complete, the time is up, or a signal stops it.

    On SIGINT or SIGTERM it finishes the current step, saves and returns. SIGKILL loses the steps
    since the last save. The result of a step depends only on the plan, the data and the number of
    the step.

    Args:
        dataset: a folder in a layout of :mod:`~bsmamba2_training.layout`.
        minutes: time limit of this call; None for no limit.
        save_every_s: seconds between saves.
        workers: processes that mix items; 0 mixes in this process.
        report: called after each step.

    Returns:
        Whether the plan is complete.

    Raises:
        AudioError: the data set has no training stems or no validation songs.
    """
    plan, device = run.plan, run.device
    pools = training_pools(dataset)
    levels = None if pools.has_own_levels else Mixing.voice_db
    if (plan.singers and not pools.singers) or (plan.songs and not pools.songs):
        raise AudioError(
            "dataset must contain train/singers and train/songs for items with singers and songs; "
            f"got {dataset} without them: build it with bsmamba2 dataset, or train without them"
        )
    mixing = Mixing(
        voice_db=levels,
        second_music=plan.variety,
        equaliser=plan.variety,
        singers=plan.singers,
        songs=plan.songs,
        stereo=plan.stereo,
    )
    mixtures = Mixtures(pools, plan.samples, plan.seed, mixing)
    excerpts = list(_validation_excerpts(validation_songs(dataset), plan.valid_s))
    loader = DataLoader(
        mixtures,
        batch_size=plan.batch,
        sampler=range(run.step * plan.batch, plan.steps * plan.batch),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )
    started = saved = time.monotonic()
    before = run.seconds
    with _catch_stop_signals() as is_stop_requested, native.training():
        for item in loader:
            figures = _step(run, *(part.to(device) for part in item))
            is_valid_due = (run.step + 1) % plan.valid_every == 0 or run.step + 1 == plan.steps
            if is_valid_due:
                figures |= validate(run.average.net, excerpts, device)
            now = time.monotonic()
            run.seconds = before + now - started
            run.log(**figures, seconds=run.seconds)
            run.step += 1
            if report:
                report(run.step, plan.steps, _line(figures))
            is_time_up = minutes is not None and now - started > 60 * minutes
            must_stop = is_stop_requested() or is_time_up
            if is_valid_due or must_stop or now - saved >= save_every_s:
                run.save()
                saved = time.monotonic()
            if must_stop:
                break
    return run.step >= plan.steps


def _step(run: Run, mixture: Tensor, vocals: Tensor, known: Tensor) -> dict[str, float]:
    """Runs one optimiser step and returns its row of the curve."""
    plan = run.plan
    rate = plan.rate(run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    rng = np.random.default_rng((plan.seed, run.step, 1))
    run.optimizer.zero_grad(set_to_none=True)
    weights = torch.tensor([1, 1, plan.silence_weight(run.step), plan.sdr], device=run.device)
    terms = torch.zeros(4, device=run.device)
    count = plan.parts
    parts = zip(mixture.chunk(count), vocals.chunk(count), known.chunk(count), strict=True)
    for part in parts:
        part_terms = len(part[0]) / len(mixture) * _loss_terms(run, *part, rng)
        (weights @ part_terms).backward()
        terms += part_terms.detach()
    norm = torch.nn.utils.clip_grad_norm_(run.net.parameters(), plan.clip)
    if torch.isfinite(norm):
        run.optimizer.step()
        run.average.update(run.net, run.step)
    waveform, spectral, silence, sdr = terms.tolist()
    return {
        "loss": float(weights @ terms),
        "waveform": waveform,
        "spectral": spectral,
        "silence": silence,
        "sdr": sdr,
        "gradient": float(norm),
        "rate": rate,
    }


def _loss_terms(
    run: Run, mixture: Tensor, vocals: Tensor, known: Tensor, rng: np.random.Generator
) -> Tensor:
    """Returns the waveform, spectral, silence and SDR losses, (4,); the last two 0 if unused.

    Where the vocals are not known, nothing counts: vocals, estimate and mixture are set to zero.
    """
    plan = run.plan
    with torch.autocast(run.device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
        spectra = separate(run.net, mixture, plan.streaming, rng)
    estimate = spectrum.istft(spectra.float(), *_transform(run.net), mixture.shape[-1])[:, 0]
    estimate = torch.where(known > 0, estimate, 0)
    vocals, mixture = vocals * known, mixture * known
    waveform, spectral = separation_loss(estimate, vocals, plan.loss_hop)
    unused = waveform.new_zeros(())
    silence = silence_loss(estimate, vocals, mixture) if plan.silence else unused
    sdr = sdr_loss(estimate, vocals) if plan.sdr else unused
    return torch.stack([waveform, spectral, silence, sdr])


def separate(net: BSMamba2, mixture: Tensor, streaming: float, rng: np.random.Generator) -> Tensor:
    """Separates a batch, some items as whole songs and some as streams.

    The first items run whole. The last ones run in the steps of a stream, with a block and a
    lookahead drawn at random for each call. Without these the network would never see the backward
    scan start from an empty state in the middle of a song.

    Args:
        mixture: (b, channels, samples).
        streaming: expected fraction of the items that run as streams.

    Returns:
        Spectra of the stems, (b, stems, channels, frames, F, 2).
    """
    mixture_spectra = spectrum.stft(mixture, *_transform(net))
    # A fractional item becomes one item with that probability.
    expected = streaming * len(mixture_spectra)
    count = int(expected) + int(rng.random() < expected - int(expected))
    first_streamed = len(mixture_spectra) - count
    whole, streamed = mixture_spectra[:first_streamed], mixture_spectra[first_streamed:]
    parts = []
    if len(whole):
        parts.append(net.separate_spectrum(whole))
    if len(streamed):
        frames = mixture_spectra.shape[2]
        block = int(np.exp(rng.uniform(np.log(10), np.log(max(11, frames // 2)))))
        lookahead = int(np.exp(rng.uniform(np.log(5), np.log(max(6, frames // 2)))))
        parts.append(_separate_in_steps(net, streamed, Schedule(block, lookahead)))
    return torch.cat(parts)


def _separate_in_steps(net: BSMamba2, mixture_spectra: Tensor, schedule: Schedule) -> Tensor:
    """Separates in the steps of a schedule; gradients flow through the carried states."""
    states, parts = net.start(), []
    for step in schedule.steps(mixture_spectra.shape[2]):
        block, lookahead, states = net.step(
            mixture_spectra[:, :, step.block], mixture_spectra[:, :, step.lookahead], states
        )
        parts += [block, lookahead] if step.last else [block]
    return torch.cat(parts, dim=3)


@torch.no_grad()
def validate(
    net: BSMamba2, excerpts: list[tuple[Tensor, Tensor]], device: torch.device
) -> dict[str, float]:
    """Returns means over pairs of mixture and vocals, dB.

    They are the uSDR of the vocals, the level of the voice in them, and their level where no voice
    sounds; the last is missing if a voice sounds throughout.
    """
    scores: dict[str, list[float]] = {name: [] for name in VALIDATION}
    for mixture, vocals in excerpts:
        estimate = net(mixture[None].to(device))[0, 0].cpu().numpy()
        truth = vocals.numpy()
        scores["valid_usdr_db"].append(usdr_db(truth, estimate))
        scores["valid_level_db"].append(level_db(truth, estimate))
        leakage = leakage_db(mixture.numpy(), truth, estimate)
        if leakage is not None:
            scores["valid_leakage_db"].append(leakage)
    return {name: float(np.mean(values)) for name, values in scores.items() if values}


def _validation_excerpts(
    candidates: tuple[Song, ...], seconds: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cuts the middle ten seconds from songs with a voice there, until ``seconds`` are reached."""
    remaining = seconds
    for song in candidates:
        if remaining <= 0:
            return
        mixture, vocals, _ = song.stems()
        start = max(0, (mixture.shape[1] - 441000) // 2)
        middle = slice(start, start + 441000)
        if vocals[:, middle].any():
            remaining -= 10
            yield torch.from_numpy(mixture[:, middle]), torch.from_numpy(vocals[:, middle])


def _transform(net: BSMamba2) -> tuple[int, int]:
    return net.config.n_fft, net.config.hop


def _line(figures: dict[str, float]) -> str:
    valid = [f"{figures[name]:.2f}" for name in VALIDATION if name in figures]
    return f"loss {figures['loss']:.4f}" + (f", valid {', '.join(valid)} dB" if valid else "")


@contextmanager
def _catch_stop_signals() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether SIGINT or SIGTERM was received.

    The signals have no other effect until the context ends.
    """
    received: list[int] = []

    def record(number: int, frame: FrameType | None) -> None:
        received.append(number)

    previous = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
