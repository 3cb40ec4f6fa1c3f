"""Exports a checkpoint to verified ONNX: trace, write, run, compare, and only then rename."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from onnx import ModelProto

from bsmamba2.devices.device import CPU
from bsmamba2.devices.kernel import library
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.protocols import Engine
from bsmamba2.engines.step_engine import StepEngine, SteppedEngine
from bsmamba2.errors import ModelError, not_one_of
from bsmamba2.files.part_file import replacing
from bsmamba2.formats.families import TITLES
from bsmamba2.formats.manifest import Manifest, State, default_overlap, residual_of
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import CHECK_STEPS, SNR_DB, make_check
from bsmamba2.models.model_file import open_checkpoint
from bsmamba2_export import artifact, tensorrt_target
from bsmamba2_export.precision import MINIMUM_SNR_DB, with_half_weights
from bsmamba2_export.trace import finish, state_shapes, trace_nodes
from bsmamba2_export.verify import compare, verify, verify_steps
from bsmamba2_network import BSMamba2
from bsmamba2_network.families import Network, guesses, network_of
from bsmamba2_network.sizes import Sizes

TARGETS = ("portable", "ort", "inlined", *tensorrt_target.TARGETS)
ALIASES = {"openvino": "inlined"}
"""Other names of targets: the engine that most people export the target for."""

IO_BY_FAMILY = {"htdemucs": ("both",), "scnet": ("spectrum",)}
"""The inputs that a graph can have, by family; the first is the default."""

Report = Callable[[str], None]


def export(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | Sizes | None = None,
    target: str = "portable",
    io: str | None = None,
    streaming: bool = False,
    precision: str = "fp32",
    weights: str | None = None,
    overwrite: bool = False,
    report: Report = lambda _: None,
    notice: Report = lambda _: None,
) -> Manifest:
    """Exports a checkpoint to one verified ONNX file.

    Args:
        checkpoint: a name from ``bsmamba2 models``, or the path of a ``.safetensors``, MSST's
            ``.ckpt``, Demucs' ``.th`` or the authors' Lightning file, of any network in
            :data:`bsmamba2_network.families.FAMILIES`.
        output: the ``.onnx`` to write; it appears under this name only when it has been verified.
        config: MSST's yaml or the sizes. Default: derived from the checkpoint.
        target: ``portable`` (any ONNX Runtime), ``ort`` (uses ONNX Runtime's own attention, which
            has CUDA kernels), ``inlined`` (only standard operators and no functions; also called
            ``openvino``), or ``tensorrt`` or ``tensorrt-plugin``, which are derived from a verified
            portable model.
        io: ``spectrum``, or ``waveform``, which includes the Fourier transforms. Default: waveform
            for fp16 and bf16, which are for GPUs, if the network has that form; else spectrum.
        streaming: whether to export one step of a stream, with its states, instead of whole chunks;
            only for a BSMamba2.
        precision: precision of the products with weights, ``fp32``, ``fp16`` or ``bf16``; the rest
            is float32.
        weights: precision of the stored matrices if ``precision`` is fp32: ``fp32`` or ``fp16``.
        overwrite: whether an existing file may be replaced.
        report: called with a message for the user before each step.
        notice: called with a message for the user to keep: which sizes are guesses.

    Returns:
        The manifest, which contains the measured SNRs.

    Raises:
        ModelError: the checkpoint or an argument cannot be used, or the exported file does not
            agree with the network.
    """
    path = Path(output)
    if path.suffix != ".onnx":
        raise ModelError(f"output must end in .onnx; got {str(path)!r}")
    if path.is_dir() or (path.exists() and not overwrite):
        raise ModelError(
            f"output must be a new file; got {str(path)!r}, which exists: choose another, or allow "
            "overwriting with overwrite=True"
        )
    if not path.parent.is_dir():
        raise ModelError(
            f"output must be in an existing folder; got {str(path)!r}: create {str(path.parent)!r}"
        )
    report(f"reading {Path(checkpoint).name}")
    read = open_checkpoint(checkpoint)
    net = network_of(read, config)
    if config is None and read.family != "bs_mamba2" and (names := guesses(read)):
        stated = ", ".join(f"{name} {getattr(net.config, name)}" for name in names)
        notice(f"{read.name} does not state these, so they are guesses: {stated}; pass its yaml")
    for key, value in net.state_dict().items():
        if not value.isfinite().all():
            raise ModelError(
                f"checkpoint must have finite weights; got {read.name}, whose {key} is not finite: "
                "download it again"
            )
    manifest = describe(
        net,
        read.title,
        target=target,
        io=io,
        streaming=streaming,
        precision=precision,
        weights=weights,
        checkpoint_sha256=read.sha256,
        licence=read.licence,
    )
    return export_network(net, manifest, path, report)


def export_network(
    net: Network, manifest: Manifest, path: Path, report: Report = lambda _: None
) -> Manifest:
    """Exports a network in memory in the form that the manifest states; see :func:`export`."""
    report(f"tracing {manifest.parameters:,} parameters")
    traced = trace_nodes(
        net, manifest.io, streaming=manifest.streaming, precision=manifest.precision
    )
    precision, minimum_db = manifest.precision, MINIMUM_SNR_DB[manifest.precision]
    for_tensorrt = manifest.target in tensorrt_target.TARGETS
    target = "portable" if for_tensorrt else manifest.target
    with replacing(path) as unverified:
        if precision != "fp32":
            report(f"comparing an emulation of {precision} with the network")
            copy = ModelProto()
            copy.CopyFrom(traced)
            model = finish(copy, net, target, precision=precision, emulate=True)
            artifact.set_manifest(model, manifest.replace(precision="fp32", weights="fp32"))
            artifact.write(model, unverified)
            measured = measure(unverified, net, minimum_db)
            manifest = manifest.replace(verification=measured.verification, check=measured.check)
        weights = manifest.weights if precision == "fp32" else "fp32"
        model = finish(traced, net, target, precision=precision, weights=weights)
        artifact.set_manifest(model, manifest)
        artifact.write(model, unverified)
        if precision != "bf16":  # CPUs cannot run its products
            report("comparing with the network")
            measured = measure(unverified, net, minimum_db)
            manifest = measured if precision == "fp32" else manifest
        artifact.set_manifest(model, manifest)
        if for_tensorrt:
            model = tensorrt_target.retarget(model, manifest, manifest.target)
        artifact.write(model, unverified)
    return manifest


def measure(path: Path, net: Network, minimum_db: float = MINIMUM_SNR_DB["fp32"]) -> Manifest:
    """Compares a written model with the network and returns its manifest with the measured SNRs.

    Runs the scan's body from the file, and the native kernel if it is installed.

    Raises:
        ModelError: the body or the kernel does not agree with the network.
    """
    file = read_onnx(path)
    verification: dict[str, float] = {}
    if (file.manifest.precision, file.manifest.weights) == ("fp32", "fp16"):
        stored = with_half_weights(net)
        verification["stored_weights"] = compare(net, stored)
        net = stored
    # Only the scans have a kernel, and an inlined graph has no nodes of ours.
    known = file.manifest
    has_kernel = known.family == "bs_mamba2" and known.target != "inlined" and library() is not None
    for kernel in [False, True] if has_kernel else [False]:
        if file.manifest.streaming:
            assert isinstance(net, BSMamba2)
            snr_db = verify_steps(StepEngine(file, CPU, kernel=kernel), net, minimum_db)
        else:
            snr_db = verify(OrtEngine(file, CPU, kernel=kernel), net, minimum_db)
        suffix = "_kernel" if kernel else ""
        verification |= {f"{name}{suffix}": value for name, value in snr_db.items()}
    engine: Engine
    if file.manifest.streaming:
        engine = SteppedEngine(StepEngine(file, CPU, kernel=False), CHECK_STEPS)
    else:
        engine = OrtEngine(file, CPU, kernel=False)
    check = make_check(engine, min(SNR_DB, minimum_db))
    return file.manifest.replace(verification=verification, check=check)


def _default_io(forms: tuple[str, ...], precision: str, streaming: bool) -> str:
    """Returns the form in which a graph is fast.

    Beside a GPU the Fourier transforms of the CPU take longer than the network.
    """
    on_gpu = precision in ("fp16", "bf16") and not streaming
    return "waveform" if on_gpu and "waveform" in forms else forms[0]


def describe(
    net: Network,
    name: str,
    *,
    target: str = "portable",
    io: str | None = None,
    streaming: bool = False,
    precision: str = "fp32",
    weights: str | None = None,
    checkpoint_sha256: str | None = None,
    licence: str | None = None,
) -> Manifest:
    """Returns the manifest of a network before its export.

    Raises:
        ModelError: the target, io or precision is unknown, or two of them cannot be combined.
    """
    target = ALIASES.get(target, target)
    if target not in TARGETS:
        raise ModelError(not_one_of("target", TARGETS, target))
    if streaming and net.config.family != "bs_mamba2":
        raise ModelError(
            f"streaming must be left out for a {TITLES[net.config.family]}, which sees whole chunks"
        )
    forms = IO_BY_FAMILY.get(net.config.family, ("spectrum", "waveform"))
    if io is None:
        io = _default_io(forms, precision, streaming)
    if io not in forms:
        name = TITLES[net.config.family]
        raise ModelError(f"io must be {' or '.join(forms)} for a {name}; got {io!r}")
    if streaming and target in tensorrt_target.TARGETS:
        raise ModelError(
            f"target must be portable, ort or inlined in a streaming graph; got {target!r}"
        )
    if streaming and io != "spectrum":
        raise ModelError(f"io must be spectrum in a streaming graph; got {io!r}: leave io out")
    if precision not in MINIMUM_SNR_DB:
        raise ModelError(not_one_of("precision", MINIMUM_SNR_DB, precision))
    if precision != "fp32" and weights not in (None, precision):
        raise ModelError(
            f"weights must be left out with precision {precision}, which determines them; got "
            f"{weights!r}"
        )
    config = net.config
    # The compact form multiplies weights when it is loaded, and then rounds them.
    is_compact = io == "waveform" and config.family == "bs_mamba2"
    state = net.state_dict()
    carried = state_shapes(config) if streaming else {}
    return Manifest(
        name=name,
        stems=config.stems,
        residual=residual_of(config.stems),
        sample_rate=config.sample_rate,
        channels=config.channels,
        n_fft=config.n_fft,
        hop=config.hop,
        chunk=config.chunk,
        overlap=default_overlap(config.chunk, config.sample_rate),
        io=io,
        family=config.family,
        transform=config.transform,
        fixed_length=config.fixed_length,
        normalize=config.normalize,
        zero_dc=config.zero_dc,
        target=target,
        precision=precision,
        weights=weights or ("fp32" if is_compact else precision),
        states=tuple(State(name, shape) for name, shape in carried.items()),
        parameters=sum(value.numel() for value in net.parameters()),
        checkpoint_sha256=checkpoint_sha256,
        licence=licence or Manifest.licence,
        initialisers={key: tuple(value.shape) for key, value in state.items()},
    )
