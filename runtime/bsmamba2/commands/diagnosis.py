"""Finds out what works on this machine, and which command installs the rest.

Devices are tested, not just listed: each one runs a small network, and its output is compared with
that of plain operators on the CPU.
"""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import soundfile

from bsmamba2 import installation
from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import IDENTICAL_DB, snr_db
from bsmamba2.devices import kernel, nvidia
from bsmamba2.devices.device import CPU, Backend, Device
from bsmamba2.devices.products import SPEEDS, products
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.ort_import import DISTRIBUTIONS, import_onnxruntime
from bsmamba2.engines.ort_providers import BACKENDS
from bsmamba2.errors import Error
from bsmamba2.files.cache import cache_folder
from bsmamba2.installation import install_command, installed_version
from bsmamba2.models import registry
from bsmamba2.models.cached_file import find_cached
from bsmamba2.models.check import SNR_DB, check_input
from bsmamba2.models.graph import shipped_graphs

WORKS, ABSENT, BROKEN = "works", "absent", "broken"

FORMATS = ("WAV", "RF64", "W64", "AIFF", "FLAC", "OGG", "MP3")
"""The containers that songs usually have."""


@dataclass(frozen=True)
class Finding:
    """The state of one part."""

    part: str
    state: str
    """``works``; ``absent``: missing but optional; ``broken``: missing but needed, or wrong."""
    found: str
    fix: str = ""
    """How to fix it, usually a command; empty if nothing is wrong."""


def examine() -> Iterator[Finding]:
    """Yields the state of every part, as soon as it is known."""
    known = f"{installation.version()}, Python {platform.python_version()}"
    yield Finding("bsmamba2", WORKS, f"{known}, {platform.system()} {platform.machine()}")
    runtime = _runtime()
    yield runtime
    if runtime.state == WORKS:
        yield _kernel()
        yield from _products()
        expected = _small_output(CPU, kernel=False)
        for kind, backend in sorted(BACKENDS, key=lambda item: item[0]):
            yield from _devices(kind, backend, expected)
    yield _audio()
    for package, extra, use in (
        ("av", "av", "reads M4A, AAC, MP4 and WMA"),
        ("pedalboard", "pedalboard", "separation as an effect"),
        ("torch", "network", "the network in PyTorch"),
        ("onnx", "export", "bsmamba2 export"),
        ("gradio", "ui", "bsmamba2 ui"),
        ("ray", "cluster", "bsmamba2 library"),
    ):
        yield _package(package, extra, use)
    yield _cache()
    yield from _models()


def _runtime() -> Finding:
    try:
        ort = import_onnxruntime()
    except Error as error:
        reason, _, command = str(error).partition("; run: ")
        return Finding("ONNX Runtime", BROKEN, reason, command)
    installed = [name for name in DISTRIBUTIONS if installed_version(name)]
    return Finding("ONNX Runtime", WORKS, f"{', '.join(installed)} {ort.__version__}")


def _kernel() -> Finding:
    if os.environ.get("BSMAMBA2_KERNEL") == "off":
        return Finding("kernel", ABSENT, "switched off", "unset BSMAMBA2_KERNEL")
    if kernel.library() is None:
        return Finding(
            "kernel",
            ABSENT,
            "not built; plain operators run instead, several times slower",
            f"install a C++17 compiler, then: {install_command(force=True)}",
        )
    instructions = kernel.instruction_set()
    if instructions is None:
        chosen = os.environ.get("BSMAMBA2_ISA")
        fix = "unset BSMAMBA2_ISA" if chosen else install_command(force=True)
        return Finding("kernel", BROKEN, f"{kernel.library()} cannot be used here", fix)
    return Finding("kernel", WORKS, instructions)


def _products() -> Iterator[Finding]:
    """Yields the products of the kernel's speeds, if there is a kernel."""
    if kernel.instruction_set() is None:
        return
    found = {speed: products(speed).partition("; ") for speed in SPEEDS}
    wrong = next((reason for _, _, reason in found.values() if reason), "")
    text = ", ".join(f"{speed}: {names}" for speed, (names, _, _) in found.items())
    if wrong:
        fix = "report this processor; bsmamba2 works without these products"
        yield Finding("products", ABSENT, f"{text}; {wrong}", fix)
    else:
        yield Finding("products", WORKS, text)


def _devices(kind: str, backend: Backend, expected: Audio) -> Iterator[Finding]:
    driver = nvidia.driver()
    cards = len(driver.cards) if driver and kind != "cpu" else 1
    for device in (Device(kind, index) for index in range(max(cards, 1))):
        missing = backend(device)
        if missing is not None:
            found, _, fix = missing.partition(": ")
            yield Finding(str(device), ABSENT, found.removesuffix("; run"), fix)
        else:
            yield _try(device, expected)


def _try(device: Device, expected: Audio) -> Finding:
    """Runs the small network on the device, and compares the output."""
    part, hardware = str(device), device.hardware
    try:
        agreement = snr_db(expected, _small_output(device))
    except Error as error:
        return Finding(part, BROKEN, f"{hardware}; it fails", str(error))
    if not agreement >= SNR_DB:
        found = f"{hardware}; its output is wrong ({agreement:.0f} dB)"
        return Finding(part, BROKEN, found, "use another device, and report this one")
    precision = "exactly" if agreement >= IDENTICAL_DB else f"to {agreement:.0f} dB"
    return Finding(part, WORKS, f"{hardware}; agrees with plain operators {precision}")


def _small_output(device: Device, kernel: bool = True) -> Audio:
    """Returns the output of a small network for half a second of noise."""
    (graph,) = (
        graph
        for graph in shipped_graphs()
        if graph.path.stem == "tiny" and not graph.manifest.streaming
    )
    manifest = graph.manifest
    engine = OrtEngine(graph, device, _weights(manifest.initialisers), kernel=kernel)
    return engine.run(check_input(0, manifest.channels, manifest.sample_rate // 2))


def _weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Audio]:
    """Returns random weights, scaled so that the network's output is finite and not silent."""
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
        without = f"{found}; without {', '.join(missing)}"
        return Finding("audio files", ABSENT, without, "pip install -U soundfile")
    return Finding("audio files", WORKS, found)


def _package(package: str, extra: str, use: str) -> Finding:
    known = installed_version(package)
    if known:
        return Finding(package, WORKS, f"{known}, from the extra [{extra}]: {use}")
    return Finding(package, ABSENT, f"not installed: {use}", install_command(extra))


def _cache() -> Finding:
    folder = cache_folder()
    probe = folder / f".{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        fix = "set BSMAMBA2_CACHE to a writable folder"
        return Finding("cache", BROKEN, f"{folder}: {error.strerror}", fix)
    return Finding("cache", WORKS, str(folder))


def _models() -> Iterator[Finding]:
    """Yields the downloaded models, and the first of the catalogue in any case."""
    known, wrong = registry.PUBLISHED, ""
    try:
        known = registry.published()
    except Error as error:
        wrong = str(error)
    if wrong:
        fix = f"correct it, or unset {registry.CATALOGUE_VARIABLE}"
        yield Finding("catalogue", BROKEN, wrong, fix)
    else:
        number = f"{len(known)} published models: bsmamba2 models"
        yield Finding("catalogue", WORKS, number)
    for model in known:
        if files := find_cached(model):
            paths = ", ".join(str(cached.path) for cached in files)
            yield Finding(model.name, WORKS, paths)
        elif model == known[0]:
            yield Finding(model.name, ABSENT, "not fetched", registry.how_to_fetch(model))
