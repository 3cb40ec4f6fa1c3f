"""The loop: items in, a step of the optimiser, a row of the curve; stopped and resumed at will."""

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
from bsmamba2_network import BSMamba2, native, spectrum
from bsmamba2_training.layout import Song, songs, training_pools
from bsmamba2_training.loss import separation_loss, silence_loss
from bsmamba2_training.metrics import usdr_db
from bsmamba2_training.mixing import Mixing, Mixtures
from bsmamba2_training.run import Run

Report = Callable[[int, int, str], None]
"""Called after each step with its number, the number of all, and a line of figures."""


def train(
    run: Run,
    dataset: Path,
    *,
    minutes: float | None = None,
    save_every_s: float = 120.0,
    workers: int = 0,
    report: Report | None = None,
) -> bool:
    """Goes on with a run until its plan is done, the minutes are over, or it is told to stop.

    SIGINT and SIGTERM end the step, save and return; SIGKILL costs what was done since the last
    save. What a step does depends on the plan, the data and its number alone.

    Args:
        dataset: see :mod:`~bsmamba2_training.layout`.
        minutes: of this leg; None for no limit.
        save_every_s: seconds between saves.
        workers: processes that mix items; 0 mixes in this one.

    Returns:
        Whether the plan is done.
    """
    plan, device = run.plan, run.device
    pools = training_pools(dataset)
    levels = None if pools.has_own_levels else Mixing.voice_db
    mixing = Mixing(voice_db=levels, second_music=plan.variety, equaliser=plan.variety)
    mixtures = Mixtures(pools, plan.samples, plan.seed, mixing)
    heard = list(_validation(songs(dataset, "valid"), plan.valid_s))
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
    with _told_to_stop() as told, native.training():
        for mixture, vocals in loader:
            figures = _step(run, mixture.to(device), vocals.to(device))
            is_valid_due = (run.step + 1) % plan.valid_every == 0 or run.step + 1 == plan.steps
            if is_valid_due:
                figures["valid_usdr_db"] = validate(run.average.net, heard, device)
            now = time.monotonic()
            run.seconds = before + now - started
            run.log(**figures, seconds=run.seconds)
            run.step += 1
            if report:
                report(run.step, plan.steps, _line(figures))
            is_over = told() or (minutes is not None and now - started > 60 * minutes)
            if is_valid_due or is_over or now - saved >= save_every_s:
                run.save()
                saved = time.monotonic()
            if is_over:
                break
    return run.step >= plan.steps


def _step(run: Run, mixture: Tensor, vocals: Tensor) -> dict[str, float]:
    """One step of the optimiser; what the curve shows of it."""
    plan = run.plan
    rate = plan.rate(run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    rng = np.random.default_rng((plan.seed, run.step, 1))
    run.optimizer.zero_grad(set_to_none=True)
    terms = torch.zeros(3, device=run.device)
    for heard, wanted in zip(mixture.chunk(plan.parts), vocals.chunk(plan.parts), strict=True):
        part = len(heard) / len(mixture) * _loss_terms(run, heard, wanted, rng)
        (part[0] + part[1] + plan.silence * part[2]).backward()
        terms += part.detach()
    norm = torch.nn.utils.clip_grad_norm_(run.net.parameters(), plan.clip)
    if torch.isfinite(norm):
        run.optimizer.step()
        run.average.update(run.net, run.step)
    waveform, spectral, silence = terms.tolist()
    return {
        "loss": waveform + spectral + plan.silence * silence,
        "waveform": waveform,
        "spectral": spectral,
        "silence": silence,
        "gradient": float(norm),
        "rate": rate,
    }


def _loss_terms(run: Run, mixture: Tensor, vocals: Tensor, rng: np.random.Generator) -> Tensor:
    """(3,): the losses of the waveform, its spectrum and, where it has a weight, of silence."""
    plan = run.plan
    with torch.autocast(run.device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
        spectra = separate(run.net, mixture, plan.streaming, rng)
    estimate = spectrum.istft(spectra.float(), *_transform(run.net), mixture.shape[-1])[:, 0]
    waveform, spectral = separation_loss(estimate, vocals, plan.loss_hop)
    silence = silence_loss(estimate, vocals, mixture) if plan.silence else waveform.new_zeros(())
    return torch.stack([waveform, spectral, silence])


def separate(net: BSMamba2, mixture: Tensor, streaming: float, rng: np.random.Generator) -> Tensor:
    """Spectra of the stems, (b, stems, channels, frames, F, 2), as songs and as streams run.

    The first items of the batch run whole. The last ones run in the steps of a stream, of a block
    and a lookahead drawn anew each time: else the network never sees a backward scan start cold.
    """
    mixed = spectrum.stft(mixture, *_transform(net))
    # A part of an item is one item, with that probability.
    wanted = streaming * len(mixed)
    count = int(wanted) + int(rng.random() < wanted - int(wanted))
    whole, streamed = mixed[: len(mixed) - count], mixed[len(mixed) - count :]
    parts = []
    if len(whole):
        parts.append(net.separate_spectrum(whole))
    if len(streamed):
        frames = mixed.shape[2]
        block = int(np.exp(rng.uniform(np.log(10), np.log(max(11, frames // 2)))))
        lookahead = int(np.exp(rng.uniform(np.log(5), np.log(max(6, frames // 2)))))
        parts.append(_stream(net, streamed, Schedule(block, lookahead)))
    return torch.cat(parts)


def _stream(net: BSMamba2, mixed: Tensor, schedule: Schedule) -> Tensor:
    """Spectra in the steps of a schedule; gradients flow through the carried states."""
    states, parts = net.start(), []
    for step in schedule.steps(mixed.shape[2]):
        block, ahead, states = net.step(
            mixed[:, :, step.block], mixed[:, :, step.lookahead], states
        )
        parts += [block, ahead] if step.last else [block]
    return torch.cat(parts, dim=3)


@torch.no_grad()
def validate(net: BSMamba2, heard: list[tuple[Tensor, Tensor]], device: torch.device) -> float:
    """Mean uSDR of the vocals over what :func:`_validation` cut, dB."""
    found = [
        usdr_db(vocals.numpy(), net(mixture[None].to(device))[0, 0].cpu().numpy())
        for mixture, vocals in heard
    ]
    return float(np.mean(found))


def _validation(found: tuple[Song, ...], seconds: float) -> Iterator[tuple[Tensor, Tensor]]:
    """The middle ten seconds of songs with a voice there, until it is so many seconds."""
    left = seconds
    for song in found:
        if left <= 0:
            return
        mixture, vocals, _ = song.stems()
        start = max(0, (mixture.shape[1] - 441000) // 2)
        middle = slice(start, start + 441000)
        if vocals[:, middle].any():
            left -= 10
            yield torch.from_numpy(mixture[:, middle]), torch.from_numpy(vocals[:, middle])


def _transform(net: BSMamba2) -> tuple[int, int]:
    return net.config.n_fft, net.config.hop


def _line(figures: dict[str, float]) -> str:
    valid = figures.get("valid_usdr_db")
    return f"loss {figures['loss']:.4f}" + (f", valid {valid:.2f} dB" if valid is not None else "")


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come, in place of what they would do."""
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
