"""What works on this machine, and which line installs the rest.

Nothing is believed that can be tried: each device runs a small network, and its answer is compared
with that of plain operators on the CPU.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import soundfile

from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices import kernel, nvidia
from bsmamba2.devices.device import Device
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.ort_session import BACKENDS, DISTRIBUTIONS, import_onnxruntime
from bsmamba2.errors import Error
from bsmamba2.files.cache import cache_folder
from bsmamba2.models import registry
from bsmamba2.models.check import SNR_DB, check_input
from bsmamba2.models.model import shipped_graphs

WORKS, ABSENT, BROKEN = "works", "absent", "broken"

FORMATS = ("WAV", "RF64", "W64", "AIFF", "FLAC", "OGG", "MP3")
"""What songs come in."""


@dataclass(frozen=True)
class Finding:
    """What was found out about one part."""

    part: str
    state: str
    """``works``, ``absent`` where it is not needed, ``broken`` where it is or where it lies."""
    found: str
    mend: str = ""
    """What to do about it, mostly a line to run; empty where nothing is to be done."""


def examine() -> Iterator[Finding]:
    """Every part in turn, as soon as it is known."""
    version = f"{importlib.metadata.version('bsmamba2')}, Python {platform.python_version()}"
    yield Finding("bsmamba2", WORKS, f"{version}, {platform.system()} {platform.machine()}")
    runtime = _runtime()
    yield runtime
    if runtime.state == WORKS:
        yield _kernel()
        expected = _answer("cpu", kernel=False)
        for kind, lacking in sorted(BACKENDS, key=lambda backend: backend[0]):
            yield from _devices(kind, lacking, expected)
    yield _audio()
    for package, extra, use in (
        ("av", "av", "reads M4A, AAC, MP4 and WMA"),
        ("pedalboard", "pedalboard", "separation as an effect"),
        ("torch", "network", "the network in PyTorch"),
        ("onnx", "export", "bsmamba2 export"),
    ):
        yield _package(package, extra, use)
    yield _cache()
    yield from map(_model, registry.PUBLISHED)


def _runtime() -> Finding:
    try:
        ort = import_onnxruntime()
    except Error as error:
        reason, _, mend = str(error).partition("; run: ")
        return Finding("ONNX Runtime", BROKEN, reason, mend)
    installed = [name for name in DISTRIBUTIONS if _version(name)]
    return Finding("ONNX Runtime", WORKS, f"{', '.join(installed)} {ort.__version__}")


def _kernel() -> Finding:
    if os.environ.get("BSMAMBA2_KERNEL") == "off":
        return Finding("kernel", ABSENT, "switched off", "unset BSMAMBA2_KERNEL")
    if kernel.library() is None:
        return Finding(
            "kernel",
            ABSENT,
            "not built; plain operators run in its place, several times slower",
            "install a C++17 compiler, then: pip install --force-reinstall --no-deps bsmamba2",
        )
    instructions = kernel.instruction_set()
    if instructions is None:
        asked = os.environ.get("BSMAMBA2_ISA")
        mend = "unset BSMAMBA2_ISA" if asked else "pip install --force-reinstall --no-deps bsmamba2"
        return Finding("kernel", BROKEN, f"{kernel.library()} cannot be used here", mend)
    return Finding("kernel", WORKS, instructions)


def _devices(
    kind: str, lacking: Callable[[Device], str | None], expected: Audio
) -> Iterator[Finding]:
    driver = nvidia.driver()
    cards = len(driver.cards) if driver and kind != "cpu" else 1
    for device in (Device(kind, index) for index in range(max(cards, 1))):
        missing = lacking(device)
        if missing is not None:
            found, _, mend = missing.partition(": ")
            yield Finding(str(device), ABSENT, found.removesuffix("; run"), mend)
        else:
            yield _tried(device, expected)


def _tried(device: Device, expected: Audio) -> Finding:
    """Runs the device, and compares."""
    part, what = str(device), device.hardware
    try:
        found = snr_db(expected, _answer(part))
    except Error as error:
        return Finding(part, BROKEN, f"{what}; it fails", str(error))
    if not found >= SNR_DB:
        found_text = f"{what}; it gives wrong answers ({found:.0f} dB)"
        return Finding(part, BROKEN, found_text, "use another device, and report this one")
    agreement = "to the bit" if found == math.inf else f"to {found:.0f} dB"
    return Finding(part, WORKS, f"{what}; agrees with plain operators {agreement}")


def _answer(device: str, kernel: bool = True) -> Audio:
    """What a small network makes of half a second of noise."""
    (graph,) = (
        graph
        for graph in shipped_graphs()
        if graph.path.stem == "tiny" and not graph.manifest.streaming
    )
    manifest = graph.manifest
    engine = OrtEngine(graph, device, _weights(manifest.initialisers), kernel=kernel)
    return engine.run(check_input(0, manifest.channels, manifest.sample_rate // 2))


def _weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Audio]:
    """Values of a size that keeps what flows through the network finite and not silent."""
    draw = np.random.default_rng(0).standard_normal
    return {
        name: draw(shape, np.float32) * np.float32(0.3 / max(shape[-1:], default=1) ** 0.5)
        for name, shape in shapes.items()
    }


def _audio() -> Finding:
    known = soundfile.available_formats()
    missing = [name for name in FORMATS if name not in known]
    found = f"{soundfile.__libsndfile_version__}: {', '.join(f for f in FORMATS if f in known)}"
    if missing:
        mend = "pip install -U soundfile"
        return Finding("audio files", ABSENT, f"{found}; without {', '.join(missing)}", mend)
    return Finding("audio files", WORKS, found)


def _package(package: str, extra: str, use: str) -> Finding:
    version = _version(package)
    if version:
        return Finding(package, WORKS, f"{version}, of bsmamba2[{extra}]: {use}")
    return Finding(package, ABSENT, f"not installed: {use}", f'pip install "bsmamba2[{extra}]"')


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cache() -> Finding:
    folder = cache_folder()
    probe = folder / f".{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        mend = "set BSMAMBA2_CACHE to a folder that can be written"
        return Finding("cache", BROKEN, f"{folder}: {error.strerror}", mend)
    return Finding("cache", WORKS, str(folder))


def _model(model: registry.Published) -> Finding:
    if model.is_fetched:
        return Finding(model.name, WORKS, str(model.path))
    return Finding(model.name, ABSENT, "not fetched", model.how_to_fetch)
