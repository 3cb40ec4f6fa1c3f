"""From a model to a TensorRT engine, on the GPU's machine or, with TensorRT-RTX, on any other.

Only calls are used that TensorRT and TensorRT-RTX share. Networks are strongly typed: an engine
computes in the precision of the ONNX that it is built from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, numpy_helper

from bsmamba2.devices import nvidia
from bsmamba2.engines import tensorrt_plugin
from bsmamba2.engines.tensorrt_package import import_tensorrt
from bsmamba2.errors import DeviceError, ModelError
from bsmamba2.files.cache import cache_folder, write_bytes
from bsmamba2.formats.engine_file import BACKENDS, BuildKey, EngineFile, read_engine
from bsmamba2.models.model import Readable, read_model
from bsmamba2_export.tensorrt_target import retarget

Report = Callable[[str], None]


def build_engine(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    backend: str = "tensorrt-rtx",
    gpus: Sequence[str] = (),
    batch: int = 1,
    seconds: float | None = None,
    plugin: bool = False,
    overwrite: bool = False,
    report: Report = lambda _: None,
) -> EngineFile:
    """Builds an engine, unless the one that is there is of the same model, version and sizes.

    One of the same request whose model or TensorRT has changed since is built again.

    Args:
        model: a model's name, a checkpoint or an ``.onnx``.
        output: the ``.engine`` to write; it appears under this name only when it is whole, with
            its description beside it.
        backend: ``tensorrt-rtx`` or ``tensorrt``.
        gpus: what to build for, e.g. ``sm89``, ``sm120``; only TensorRT-RTX can, and then it needs
            no GPU. None: the GPU that is here.
        batch: the most chunks of one run, 1 to 64.
        seconds: the longest chunk. Default: the model's chunk.
        plugin: whether the scans are our CUDA kernels in place of TensorRT's operators; only in
            ``tensorrt``, whose Python must then be there when the engine runs.
        overwrite: whether any other file of that name may be replaced.
        report: told each step, for a person.

    Raises:
        ModelError: the model is not usable, or the backend refuses it.
        DeviceError: no GPU is here and none is named, or one is named that cannot be built for.
        MissingExtra: the backend is not installed.
    """
    path = Path(output)
    if path.suffix != ".engine":
        raise ModelError(f"output must end in .engine; got {str(path)!r}")
    if not path.parent.is_dir():
        raise ModelError(f"output's folder {str(path.parent)!r} does not exist: make it first")
    if backend not in BACKENDS:
        raise ModelError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if not 1 <= batch <= 64:
        raise ModelError(f"batch must be 1 to 64; got {batch}")
    if plugin and backend != "tensorrt":
        raise ModelError(f"{backend} takes no plugins from Python: leave plugin out")
    trt = import_tensorrt(backend)
    target = "tensorrt-plugin" if plugin else "tensorrt"
    if plugin:
        tensorrt_plugin.register()
    capabilities = _capabilities(trt, backend, gpus)
    report(f"reading {Path(model).name}")
    read = read_model(model)
    manifest = read.manifest
    if manifest.io != "spectrum":
        raise ModelError(f"{manifest.name} is of io waveform: export it with --io spectrum")
    length = seconds or manifest.chunk / manifest.sample_rate
    if not 0.1 <= length <= 60:
        raise ModelError(f"seconds must be 0.1 to 60; got {seconds}")
    frames = int(length * manifest.sample_rate) // manifest.hop + 1
    here = nvidia.driver()
    names = tuple(capabilities) or (here.cards[0].name if here and here.cards else "",)
    key = BuildKey(
        hashlib.sha256(read.sha256.encode()).hexdigest(),
        backend,
        trt.__version__,
        names,
        batch,
        frames,
        target,
    )
    if path.exists() and not overwrite:
        if (known := _built_here(path)) is None or not known.key.matches_request(key):
            raise ModelError(f"output {str(path)!r} exists: choose another, or overwrite it")
        if known.key == key:
            known.require_trust()
            report(f"{path.name} is up to date")
            return known
        report(f"{path.name} is of another model or TensorRT: building it again")
    report("inlining the scans")
    network = retarget(_whole(read), manifest, target)
    report(f"building for {', '.join(names)}, which takes minutes")
    # For a GPU that is not here nothing is measured.
    timings = None if capabilities else TimingCache(key)
    engine = _build(trt, network, tuple(capabilities.values()), batch, frames, timings)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(engine)
        unfinished.replace(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        unfinished.unlink(missing_ok=True)
    digest = hashlib.sha256(engine).hexdigest()
    made = EngineFile(path, manifest.replace(target=target), key, digest)
    made.write_description()
    return made


def _built_here(path: Path) -> EngineFile | None:
    """The engine of that name, if it is one that this user built."""
    try:
        known = read_engine(path)
        known.require_trust()
    except ModelError:
        return None
    return known


class TimingCache:
    """What the builder measured of single layers, for the next build by the same TensorRT for the
    same GPUs, whatever the model. Losing it costs time and nothing else."""

    def __init__(self, key: BuildKey) -> None:
        about = json.dumps([key.backend, key.version, key.gpus]).encode()
        self.path = cache_folder() / "timings" / f"{hashlib.sha256(about).hexdigest()[:32]}.cache"

    def give_to(self, config: Any) -> None:
        """Lets a build start from what was measured before."""
        try:
            known = self.path.read_bytes()
        except OSError:
            known = b""
        cache = config.create_timing_cache(known) or config.create_timing_cache(b"")
        if cache is not None:
            config.set_timing_cache(cache, ignore_mismatch=False)

    def take_from(self, config: Any) -> None:
        """Keeps what a build measured."""
        cache = config.get_timing_cache()
        if cache is not None:
            write_bytes(self.path, bytes(cache.serialize()))


def _capabilities(trt: Any, backend: str, gpus: Sequence[str]) -> dict[str, Any]:
    """TensorRT's names of the GPUs by ours; none for the GPU that is here."""
    if not gpus:
        driver = nvidia.driver()
        if driver is None or not driver.cards:
            mend = "name one with --gpu sm89" if backend == "tensorrt-rtx" else "build it on one"
            raise DeviceError(f"there is no NVIDIA GPU here to build an engine for: {mend}")
        return {}
    if backend != "tensorrt-rtx":
        raise DeviceError("tensorrt builds for the GPU that is here alone: leave --gpu out")
    known = {
        name.lower(): value
        for name, value in trt.ComputeCapability.__members__.items()
        if name.startswith("SM") and name != "SM75"  # for which it has no products in float32
    }
    for gpu in gpus:
        if gpu not in known:
            raise DeviceError(f"gpu must be one of {', '.join(sorted(known))}; got {gpu!r}")
    return {gpu: known[gpu] for gpu in gpus}


def _whole(read: Readable) -> ModelProto:
    """The model with its weights inside."""
    model = onnx.load(str(read.file.path), load_external_data=not read.file.missing_weights)
    weights = read.weights or {}
    for value in model.graph.initializer:
        if value.name in read.file.missing_weights:
            value.CopyFrom(numpy_helper.from_array(weights[value.name], value.name))
    return model


def _build(
    trt: Any,
    model: ModelProto,
    capabilities: tuple[Any, ...],
    batch: int,
    frames: int,
    timings: TimingCache | None,
) -> bytes:
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise ModelError(f"TensorRT cannot read the model ({reason}): report this")
    config = builder.create_builder_config()
    # Float32 means float32: TF32, which is on unless told otherwise, has three digits.
    config.clear_flag(trt.BuilderFlag.TF32)
    spectrum = network.get_input(0)
    _, channels, _, bins, parts = spectrum.shape
    profile = builder.create_optimization_profile()
    shapes = [(n, channels, m, bins, parts) for n, m in ((1, 1), (1, frames), (batch, frames))]
    profile.set_shape(spectrum.name, *shapes)
    config.add_optimization_profile(profile)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(capability, index)
    if timings:
        timings.give_to(config)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ModelError("TensorRT could not build the engine: its own words stand above")
    if timings:
        timings.take_from(config)
    return bytes(engine)
