"""Devices by the names that users give them, and which of them a model gets.

    auto            the best that is here and runs the model; the choice is named
    cpu             ONNX Runtime, with the native kernel where it is installed
    cuda[:N]        ONNX Runtime on NVIDIA card N, the first where N is left out
    tensorrt[:N]    TensorRT on that card

Whoever can run models on a kind of device is a :class:`Backend`: it says whether it can, and if it
cannot, which line mends that. What was asked for and cannot be had is an error; nothing is ever
replaced by something slower.
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
    """Of the card; 0 for the CPU."""

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def hardware(self) -> str:
        """What answers may depend on: the processor, or the card and its driver."""
        driver = None if self.kind == "cpu" else nvidia.driver()
        if driver is None or self.index >= len(driver.cards):
            return processor()
        card = driver.cards[self.index]
        return f"{card.name}, compute {card.compute[0]}.{card.compute[1]}, driver {driver.release}"


Backend: TypeAlias = Callable[[Device], str | None]
"""What runs models on a kind of device. Called with a device, it returns None if it can run
there, or else what is missing, and the line that mends it."""


def parse(name: str) -> Device | None:
    """The device of that name; None for ``auto``.

    Raises:
        DeviceError: no device has such a name.
    """
    found = _PATTERN.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise DeviceError(f"device must be {NAMES}; got {printable(repr(name))}")
    if name == "auto":
        return None
    return Device(found["kind"] or "cpu", int(found["index"] or 0))


def choose(name: str, backends: Sequence[tuple[str, Backend]]) -> Device:
    """The device that was asked for, or with ``auto`` the first that can be had.

    Args:
        name: as users give it.
        backends: kinds of device with what runs the model there, best first.

    Raises:
        DeviceError: it has no such name, it cannot run this model, or something is missing.
    """
    asked = parse(name)
    if asked is None:
        lacking: dict[str, str] = {}
        for kind, backend in backends:
            missing = backend(Device(kind))
            if missing is None:
                _tell_of_idle_cards(kind, lacking)
                return Device(kind)
            lacking[kind] = missing
        raise DeviceError("; ".join(f"{kind}: {missing}" for kind, missing in lacking.items()))
    known = dict(backends)
    if asked.kind not in known:
        raise DeviceError(f"device {name!r} does not run this model: give auto or {_kinds(known)}")
    missing = known[asked.kind](asked)
    if missing is not None:
        raise DeviceError(f"device {name!r} cannot be used: {missing}")
    return asked


def _tell_of_idle_cards(kind: str, lacking: Mapping[str, str]) -> None:
    """Whoever has a card means to use it, and should know what keeps it idle."""
    driver = nvidia.driver()
    if kind == "cpu" and driver and driver.cards and "cuda" in lacking:
        log.warning("device auto is cpu, and %s is idle: %s", driver.cards[0].name, lacking["cuda"])


def lacking_card(device: Device, cuda: str = "", otherwise: str = "use --device cpu") -> str | None:
    """What is missing of a card and its driver, as a :class:`Backend` answers.

    Args:
        cuda: the CUDA that the software on it was built with, e.g. ``13.0``; empty if unknown.
        otherwise: what to do on a machine that has no card.
    """
    driver = nvidia.driver()
    if driver is None:
        return f"there is no NVIDIA driver: install one, or {otherwise}"
    if not driver.cards:
        why = f" ({driver.fault})" if driver.fault else ""
        return f"the NVIDIA driver shows no card{why}: see nvidia-smi, or {otherwise}"
    if device.index >= len(driver.cards):
        listed = ", ".join(f"{device.kind}:{n} {c.name}" for n, c in enumerate(driver.cards))
        return f"there is no card {device.index}: there is {listed}"
    if cuda and driver.cuda[0] < int(cuda.partition(".")[0]):
        return (
            f"driver {driver.release} runs up to CUDA {driver.cuda[0]}.{driver.cuda[1]}, CUDA "
            f"{cuda} is wanted: update the driver, or {otherwise}"
        )
    return None


@cache
def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _kinds(known: dict[str, Backend]) -> str:
    return ", ".join(kind if kind == "cpu" else f"{kind}[:N]" for kind in known)
