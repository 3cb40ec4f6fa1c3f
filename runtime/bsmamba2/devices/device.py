"""Devices: their names, and the choice of the device that a model runs on.

    auto            the best device here that runs the model; the log names it
    cpu             ONNX Runtime, with the native kernel if it is installed
    cuda[:N]        ONNX Runtime on NVIDIA card N, default 0
    tensorrt[:N]    TensorRT on that card

Users give names. :func:`choose` turns a name into a :class:`Device` once, and the rest of the
runtime passes this object. If a requested device cannot be used, that is an error; nothing falls
back to a slower device.
"""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

from bsmamba2.devices import nvidia
from bsmamba2.errors import DeviceError, printable

log = logging.getLogger("bsmamba2")

NAMES = "auto, cpu, cuda[:N] or tensorrt[:N]"

_PATTERN = re.compile(r"auto|cpu|(?P<kind>cuda|tensorrt)(:(?P<index>[0-9]{1,3}))?")


@dataclass(frozen=True)
class Device:
    """A place where models run."""

    kind: str
    """``cpu``, ``cuda`` or ``tensorrt``."""
    index: int = 0
    """Number of the card; 0 for the CPU."""

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def hardware(self) -> str:
        """Everything that results may depend on: the processor, or the card and its driver."""
        driver = None if self.kind == "cpu" else nvidia.driver()
        if driver is None or self.index >= len(driver.cards):
            return processor()
        card = driver.cards[self.index]
        return f"{card.name}, compute {card.compute[0]}.{card.compute[1]}, driver {driver.release}"


CPU = Device("cpu")

Backend: TypeAlias = Callable[[Device], str | None]
"""Reports whether a device can be used: None, or what is missing and the command that fixes it."""


def parse(name: str) -> Device | None:
    """Returns the device of that name; None for ``auto``.

    Raises:
        DeviceError: the name is unknown.
    """
    match = _PATTERN.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise DeviceError(f"device must be {NAMES}; got {printable(repr(name))}")
    if name == "auto":
        return None
    return Device(match["kind"] or "cpu", int(match["index"] or 0))


def choose(name: str, backends: Sequence[tuple[str, Backend]]) -> Device:
    """Returns the device of that name, or for ``auto`` the first one that can be used.

    Args:
        name: the name from the user.
        backends: the kinds of device that can run the model, each with its backend, best first.

    Raises:
        DeviceError: the name is unknown, the device cannot run this model, or something is
            missing.
    """
    requested = parse(name)
    if requested is None:
        return _choose_best(backends)
    known = dict(backends)
    if requested.kind not in known:
        raise DeviceError(f"device must be auto or {_kinds(known)} for this model; got {name!r}")
    missing = known[requested.kind](requested)
    if missing is not None:
        raise DeviceError(f"device {name!r} cannot be used: {missing}")
    return requested


def _choose_best(backends: Sequence[tuple[str, Backend]]) -> Device:
    unusable: dict[str, str] = {}
    for kind, backend in backends:
        missing = backend(Device(kind))
        if missing is None:
            _warn_about_idle_cards(kind, unusable)
            return Device(kind)
        unusable[kind] = missing
    raise DeviceError("; ".join(f"{kind}: {missing}" for kind, missing in unusable.items()))


def _warn_about_idle_cards(kind: str, unusable: Mapping[str, str]) -> None:
    """Logs why ``auto`` chose the CPU although there is a card: its owner expects it to be used."""
    driver = nvidia.driver()
    if kind == "cpu" and driver and driver.cards and "cuda" in unusable:
        reason = unusable["cuda"]
        log.warning("device auto is cpu, and %s is idle: %s", driver.cards[0].name, reason)


def missing_card(
    device: Device, cuda: str = "", alternative: str = "use device='cpu'"
) -> str | None:
    """Reports what is missing to use a card, like a :data:`Backend`: its driver or the card.

    Args:
        device: the card.
        cuda: version of CUDA that the software was built with, such as ``13.0``; empty if unknown.
        alternative: what to do on a machine without a card.
    """
    driver = nvidia.driver()
    if driver is None:
        return f"there is no NVIDIA driver: install one, or {alternative}"
    if not driver.cards:
        why = f" ({driver.fault})" if driver.fault else ""
        return f"the NVIDIA driver shows no card{why}: see nvidia-smi, or {alternative}"
    if device.index >= len(driver.cards):
        listed = ", ".join(f"{device.kind}:{n} {c.name}" for n, c in enumerate(driver.cards))
        return f"there is no card {device.index}: choose from {listed}"
    if cuda and driver.cuda[0] < int(cuda.partition(".")[0]):
        return (
            f"CUDA {cuda} is needed, and driver {driver.release} runs up to CUDA "
            f"{driver.cuda[0]}.{driver.cuda[1]}: update the driver, or {alternative}"
        )
    return None


@cache
def processor() -> str:
    """Returns the name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _kinds(known: Mapping[str, Backend]) -> str:
    return ", ".join(kind if kind == "cpu" else f"{kind}[:N]" for kind in known)
