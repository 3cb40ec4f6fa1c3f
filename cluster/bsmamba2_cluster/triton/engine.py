"""A model on a Triton server, as an engine: chunks are sent over, everything else runs here.

song ─ chunks ─ HTTP ─▶ Triton ─▶ HTTP ─ fade and add ─ stems
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import Device
from bsmamba2.engines.chunk_run import run_chunk
from bsmamba2.engines.protocols import Engine
from bsmamba2.engines.step_engine import SteppedEngine, StepsAsEngine
from bsmamba2.errors import Error, ModelError, printable
from bsmamba2.formats.manifest import Manifest
from bsmamba2.models.check import CHECK_STEPS, reproduce
from bsmamba2.models.open_model import open_model
from bsmamba2.separator import Separator
from bsmamba2_cluster.triton.config import MANIFEST_PARAMETER, STREAMING_PARAMETER
from bsmamba2_cluster.triton.connection import Connection
from bsmamba2_cluster.triton.failures import AbsentModel
from bsmamba2_cluster.triton.server_options import ServerOptions
from bsmamba2_cluster.triton.stepper import TritonStepper
from bsmamba2_cluster.triton.tensors import (
    described,
    expected_tensors,
    require_shape,
    require_tensors,
)


def connect(
    url: str,
    name: str,
    *,
    model: str | os.PathLike[str] | None = None,
    verify: bool = True,
    deadline_s: float = 120.0,
    retries: int = 3,
    connections: int = 4,
    headers: Mapping[str, str] | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    certificate: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
) -> Separator:
    """Returns a separator whose model runs on a Triton server.

    It works like one whose model runs on this machine: songs are cut into chunks, resampled and
    added here, and only chunks are sent. A streaming model's states stay on the server.

    Args:
        url: ``http://HOST:PORT`` or ``https://HOST:PORT``.
        name: the model's name on the server.
        model: the same model here, a name or a path: the server's must be made from it. Needed with
            a server of the protocol that is not Triton, which does not pass on the manifest.
        verify: whether the server must reproduce the model's check of a second of noise.
        deadline_s: the longest time for one chunk, with all its retries.
        retries: how often a chunk is sent again after a lost connection or a busy server. A step
            of a stream is sent only once.
        connections: the most requests in progress at a time.
        headers: of every request, e.g. ``Authorization``.
        ca_file: the authorities to trust, PEM. Default: those of this machine.
        certificate: this client's certificate and its key, PEM.

    Raises:
        ModelError: the server has no such model, one of another kind, or one made from another
            checkpoint.
        DeviceError: the server cannot be reached, or does not reproduce the check.
        MissingExtra: tritonclient is not installed.
    """
    options = ServerOptions(
        url,
        deadline_s,
        retries,
        connections,
        dict(headers or {}),
        None if ca_file is None else Path(ca_file),
        None if certificate is None else (Path(certificate[0]), Path(certificate[1])),
    )
    return Separator(open_engine(options, name, model=model, verify=verify))


def open_engine(
    options: ServerOptions,
    name: str,
    *,
    model: str | os.PathLike[str] | None = None,
    verify: bool = True,
) -> Engine:
    """Works like :func:`connect`, for an engine: a member of an ensemble or a chain."""
    connection = Connection(options)
    try:
        remote = _open(connection, name, model)
        engine: Engine
        if remote.manifest.streaming:
            engine = StepsAsEngine(remote.stepper())
        else:
            engine = TritonEngine(connection, remote, verify)
        if verify:
            _verify(engine)
        return engine
    except BaseException:
        connection.close()
        raise


@dataclass(frozen=True)
class Server(Device):
    """A server as a device."""

    url: str = ""

    def __str__(self) -> str:
        return self.url

    @property
    def hardware(self) -> str:
        """What the server runs on is not known here."""
        return self.url


@dataclass(frozen=True)
class RemoteModel:
    """A model that the server has, and that fits its manifest."""

    connection: Connection
    name: str
    manifest: Manifest
    streaming_name: str | None = None
    """The server's model for the steps of a stream."""

    @property
    def device(self) -> Server:
        return Server("triton", url=self.connection.options.url)

    def stepper(self) -> TritonStepper:
        """Returns what runs the steps of a streaming model."""
        return TritonStepper(self.connection, self.name, self.manifest, self.device)


class TritonEngine:
    """A server's model for whole chunks; threads may share it.

    Args:
        connection: the server.
        remote: the model.
        verify: whether the model for streams must reproduce its check at the first stream.
    """

    def __init__(self, connection: Connection, remote: RemoteModel, verify: bool = True) -> None:
        self.manifest = remote.manifest
        self.device = remote.device
        self._connection, self._remote, self._verify = connection, remote, verify
        self._inputs, self._outputs = (tuple(names) for names in expected_tensors(remote.manifest))
        self._steps: TritonStepper | None = None
        self._lock = threading.Lock()

    def run(self, chunk: Audio) -> Audio:
        """See :meth:`bsmamba2.engines.protocols.Engine.run`.

        Raises:
            ModelError: the server refuses the chunk, or returns another shape.
            DeviceError: the server did not answer in time.
        """
        return run_chunk(self.manifest, chunk, self._run_graph)

    def new_stepper(self) -> TritonStepper:
        """See :meth:`bsmamba2.engines.protocols.StreamingEngine.new_stepper`."""
        name = self._remote.streaming_name
        if name is None:
            raise ModelError(
                f"lookahead_ms must be None with {self._remote.name!r} at {self.device}, which "
                "runs whole chunks: write the repository from a checkpoint of BSMamba2"
            )
        with self._lock:
            if self._steps is None:
                remote = _open(self._connection, name, None)
                if not remote.manifest.streaming or not _same_source(
                    remote.manifest, self.manifest
                ):
                    raise ModelError(
                        f"{name!r} at {self.device} must run the streams of {self._remote.name!r}; "
                        f"got {remote.manifest.name}: write the repository again with bsmamba2 "
                        "triton"
                    )
                steps = remote.stepper()
                if self._verify:
                    _verify(StepsAsEngine(steps))
                self._steps = steps
            return self._steps.another()

    def _run_graph(self, inputs: Sequence[Audio]) -> list[Audio]:
        named = dict(zip(self._inputs, inputs, strict=True))
        outputs = self._connection.infer(self._remote.name, named, self._outputs).result()
        stems = len(self.manifest.stems)
        for values, given in zip(outputs, inputs, strict=True):
            require_shape(values, (given.shape[0], stems, *given.shape[1:]), self._remote.name)
        return outputs


def _open(connection: Connection, name: str, model: str | os.PathLike[str] | None) -> RemoteModel:
    """Asks the server for a model, and compares it with its manifest and with the model here."""
    try:
        metadata = connection.call(
            lambda client, headers: client.get_model_metadata(name, headers=headers), name
        )
    except AbsentModel as error:
        raise ModelError(f"{error}{_listed(connection)}") from None
    parameters = _parameters(connection, name)
    stated = parameters.get(MANIFEST_PARAMETER)
    manifest = None if stated is None else Manifest.from_json(stated)
    if model is not None:
        manifest = _require_model(manifest, model, metadata, name)
    if manifest is None:
        raise ModelError(
            f"{name!r} at {connection.options.url} states no manifest: write its repository with "
            "bsmamba2 triton, or give model, the same model here"
        )
    require_tensors(metadata, manifest, name)
    return RemoteModel(connection, name, manifest, parameters.get(STREAMING_PARAMETER))


def _listed(connection: Connection) -> str:
    """Returns the end of a message: the names of the server's models, if it tells them."""
    try:
        index: Any = connection.call(
            lambda client, headers: client.get_model_repository_index(headers=headers), ""
        )
        names = [str(entry["name"]) for entry in index if entry.get("state") == "READY"]
    except (Error, TypeError, AttributeError, KeyError):
        return ""
    return f"; it has {printable(', '.join(sorted(names)), 500)}" if names else ""


def _parameters(connection: Connection, name: str) -> dict[str, str]:
    """Returns the parameters in the model's configuration; none if the server is not Triton."""
    try:
        config: Any = connection.call(
            lambda client, headers: client.get_model_config(name, headers=headers), name
        )
    except ModelError:  # the address is an extension of Triton
        return {}
    stated = config.get("parameters") if isinstance(config, dict) else None
    if not isinstance(stated, dict):
        return {}
    values = {key: v.get("string_value") for key, v in stated.items() if isinstance(v, dict)}
    return {key: value for key, value in values.items() if isinstance(value, str)}


def _require_model(
    found: Manifest | None, model: str | os.PathLike[str], metadata: Mapping[str, Any], name: str
) -> Manifest:
    """Requires the server's model to be made from the model here; returns its manifest."""
    here = open_model(model)
    if found is not None:
        if not _same_source(found, here.manifest):
            raise ModelError(
                f"the server's model {name!r} must be {here.manifest.name} "
                f"({_source(here.manifest)}), which is given as model; got {found.name} "
                f"({_source(found)}): write the repository again, or connect to another model"
            )
        return found
    # A checkpoint has a graph for each input; the server's input tells which one it runs.
    inputs = described(metadata, "inputs")
    for manifest in (here.graph(io=io).manifest for io in ("spectrum", "waveform")):
        if inputs.keys() == expected_tensors(manifest)[0].keys():
            return manifest
    return here.manifest


def _same_source(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests are of one checkpoint."""
    if one.checkpoint_sha256 is not None and other.checkpoint_sha256 is not None:
        return one.checkpoint_sha256 == other.checkpoint_sha256
    return one.fingerprint == other.fingerprint


def _source(manifest: Manifest) -> str:
    sha256 = manifest.checkpoint_sha256
    return f"SHA-256 {printable(sha256[:12])}…" if sha256 else "without a checkpoint"


def _verify(engine: Engine) -> None:
    """Requires a server to reproduce the model's check, if it has one."""
    if engine.manifest.check is None:
        return
    if isinstance(engine, StepsAsEngine):
        engine = SteppedEngine(engine.steps, CHECK_STEPS)
    reproduce(engine)
