"""Builds a TensorRT engine from a model: on the GPU's machine or, with TensorRT-RTX, on any other.

Uses only calls that TensorRT and TensorRT-RTX have in common. Networks are strongly typed, so an
engine computes in the precision of the ONNX model that it is built from.
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
from bsmamba2.engines.tensorrt_import import import_tensorrt
from bsmamba2.errors import DeviceError, ModelError, first_line
from bsmamba2.files.cache import cache_folder, read_own, write_bytes
from bsmamba2.files.part_file import write_atomically
from bsmamba2.formats.engine_file import BACKENDS, BuildKey, EngineFile, read_engine
from bsmamba2.formats.manifest import Manifest
from bsmamba2.models.graph import Graph
from bsmamba2.models.open_model import open_model
from bsmamba2_export.tensorrt_target import retarget

MAX_TIMING_BYTES = 1 << 28

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
    """Builds an engine, unless the output is already an engine for this request.

    An existing engine for the same request is rebuilt if the model or the version of TensorRT has
    changed since.

    Args:
        model: a model's name, a checkpoint or an ``.onnx``.
        output: the ``.engine`` to write. The file appears under this name only when it is complete;
            its description is written next to it.
        backend: ``tensorrt-rtx`` or ``tensorrt``.
        gpus: the GPUs to build for, e.g. ``sm89``, ``sm120``; only with ``tensorrt-rtx``, which
            then needs no GPU. Default: the GPU in this machine.
        batch: the maximum number of chunks per run, 1 to 64.
        seconds: the maximum length of a chunk. Default: the model's chunk.
        plugin: whether the scans run on our CUDA kernels instead of TensorRT's operators; only with
            ``tensorrt``, whose Python package is then needed to run the engine.
        overwrite: whether any other file of that name may be replaced.
        report: called with a message for the user before each step.

    Raises:
        ModelError: the model or an argument cannot be used, or the backend rejects the model.
        DeviceError: there is no GPU and ``gpus`` is empty, or ``gpus`` has one that is unsupported.
        MissingExtra: the backend is not installed.
    """
    path = Path(output)
    if path.suffix != ".engine":
        raise ModelError(f"output must end in .engine; got {str(path)!r}")
    if not path.parent.is_dir():
        raise ModelError(
            f"output must be in an existing folder; got {str(path)!r}: create {str(path.parent)!r}"
        )
    if backend not in BACKENDS:
        raise ModelError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if not 1 <= batch <= 64:
        raise ModelError(f"batch must be in [1, 64]; got {batch}")
    if plugin and backend != "tensorrt":
        raise ModelError(f"plugin needs the backend tensorrt; got {backend!r}: leave plugin out")
    trt = import_tensorrt(backend)
    target = "tensorrt-plugin" if plugin else "tensorrt"
    if plugin:
        tensorrt_plugin.register()
    capabilities = _capabilities(trt, backend, gpus)
    report(f"reading {Path(model).name}")
    graph = open_model(model).graph(io="waveform")  # so no transform runs on the CPU
    manifest = graph.manifest
    frames = _frames(manifest, seconds)
    driver = nvidia.driver()
    names = tuple(capabilities) or (driver.cards[0].name if driver and driver.cards else "",)
    key = BuildKey(
        hashlib.sha256(graph.sha256.encode()).hexdigest(),
        backend,
        trt.__version__,
        names,
        batch,
        frames,
        target,
    )
    if path.exists() and not overwrite:
        existing = _own_engine(path)
        if existing is None or not existing.key.matches_request(key):
            raise ModelError(
                f"output must be a new file; got {str(path)!r}, which exists: choose another, or "
                "allow overwriting with overwrite=True"
            )
        if existing.key == key:
            existing.require_trust()
            report(f"{path.name} is up to date")
            return existing
        report(f"{path.name} was built from another model or by another TensorRT: rebuilding it")
    report("inlining the scans")
    network = retarget(_whole(graph), manifest, target)
    report(f"building for {', '.join(names)}, which takes minutes")
    # TensorRT does not time kernels when it builds for a GPU in another machine.
    timings = None if capabilities else TimingCache(key)
    lengths = _lengths(manifest, frames)
    engine = _build(trt, network, tuple(capabilities.values()), batch, lengths, timings)
    try:
        write_atomically(path, engine)
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {first_line(error)}") from None
    digest = hashlib.sha256(engine).hexdigest()
    built = EngineFile(path, manifest.replace(target=target), key, digest)
    built.write_description()
    return built


def _own_engine(path: Path) -> EngineFile | None:
    """Returns the engine at this path if this user built it."""
    try:
        engine = read_engine(path)
        engine.require_trust()
    except ModelError:
        return None
    return engine


class TimingCache:
    """The builder's timings of individual layers, stored for later builds.

    There is one file per version of TensorRT and set of GPUs; all models share it. Losing it only
    makes the next build slower.
    """

    def __init__(self, key: BuildKey) -> None:
        identity = json.dumps([key.backend, key.version, key.gpus]).encode()
        self.path = (
            cache_folder() / "timings" / f"{hashlib.sha256(identity).hexdigest()[:32]}.cache"
        )

    def load_into(self, config: Any) -> None:
        """Gives a build the earlier timings."""
        try:
            content = read_own(self.path, MAX_TIMING_BYTES)
        except OSError:
            content = b""
        cache = config.create_timing_cache(content) or config.create_timing_cache(b"")
        if cache is not None:
            config.set_timing_cache(cache, ignore_mismatch=False)

    def save_from(self, config: Any) -> None:
        """Saves the timings after a build."""
        cache = config.get_timing_cache()
        if cache is not None:
            write_bytes(self.path, bytes(cache.serialize()))


def _capabilities(trt: Any, backend: str, gpus: Sequence[str]) -> dict[str, Any]:
    """Maps names such as sm89 to TensorRT's; empty for the GPU in this machine."""
    if not gpus:
        driver = nvidia.driver()
        if driver is None or not driver.cards:
            fix = "name one, e.g. sm89" if backend == "tensorrt-rtx" else "use one that has"
            raise DeviceError(f"this machine has no NVIDIA GPU to build an engine for: {fix}")
        return {}
    if backend != "tensorrt-rtx":
        raise DeviceError(
            f"gpu must be left out with {backend}, which builds only for the GPU in this machine; "
            f"got {', '.join(gpus)}"
        )
    supported = {
        name.lower(): value
        for name, value in trt.ComputeCapability.__members__.items()
        if name.startswith("SM") and name != "SM75"  # which has no float32 products in TensorRT-RTX
    }
    for gpu in gpus:
        if gpu not in supported:
            raise DeviceError(f"gpu must be one of {', '.join(sorted(supported))}; got {gpu!r}")
    return {gpu: supported[gpu] for gpu in gpus}


def _whole(graph: Graph) -> ModelProto:
    """Returns the model with its weights included."""
    model = onnx.load(str(graph.file.path), load_external_data=not graph.file.missing_weights)
    weights = graph.weights or {}
    for value in model.graph.initializer:
        if value.name in graph.file.missing_weights:
            value.CopyFrom(numpy_helper.from_array(weights[value.name], value.name))
    return model


def _frames(manifest: Manifest, seconds: float | None) -> int:
    """Returns the number of frames of the longest chunk."""
    samples = manifest.chunk
    if seconds is not None:
        if manifest.fixed_length:
            raise ModelError(
                f"seconds must be left out with {manifest.family}, which takes only whole chunks; "
                f"got {seconds:g}"
            )
        if not 0.1 <= seconds <= 60:
            raise ModelError(f"seconds must be in [0.1, 60]; got {seconds:g}")
        samples = int(seconds * manifest.sample_rate)
    return samples // manifest.hop + 1


Lengths = tuple[int, int, int]
"""The smallest, the usual and the largest length of a chunk, in frames or in samples."""


def _lengths(manifest: Manifest, frames: int) -> Lengths:
    """Returns the lengths of chunks of up to this many frames, as the graph's input has them."""
    if manifest.io != "waveform":
        return 1, frames, frames
    most = frames * manifest.hop - 1
    return manifest.n_fft // 2 + 1, max((frames - 1) * manifest.hop, manifest.n_fft), most


def _shapes(shape: tuple[int, ...], batch: int, lengths: Lengths) -> list[tuple[int, ...]]:
    """Returns the smallest, the usual and the largest shape of an input whose free axes are −1.

    Those are the batch, and the length unless the graph takes only whole chunks.
    """
    free = zip((1, 1, batch), lengths, strict=True)
    return [(n, *(m if size < 0 else size for size in shape[1:])) for n, m in free]


def _build(
    trt: Any,
    model: ModelProto,
    capabilities: tuple[Any, ...],
    batch: int,
    lengths: Lengths,
    timings: TimingCache | None,
) -> bytes:
    """Runs TensorRT's builder on the model and returns the serialized engine."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise ModelError(f"TensorRT cannot read the model ({reason}): report this")
    config = builder.create_builder_config()
    # TensorRT enables TF32 by default, which has only three significant digits.
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        value = network.get_input(index)
        profile.set_shape(value.name, *_shapes(tuple(value.shape), batch, lengths))
    config.add_optimization_profile(profile)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(capability, index)
    if timings:
        timings.load_into(config)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ModelError("TensorRT could not build the engine: see its messages above")
    if timings:
        timings.save_from(config)
    return bytes(engine)
