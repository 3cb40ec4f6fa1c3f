"""TensorRT engine files, each with a JSON description next to it.

An engine is executable code: anyone who can replace the file can run anything in this process. An
engine is loaded only if this user built it on this machine, in which case the user's cache contains
its SHA-256, or if the caller explicitly trusts it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bsmamba2.errors import ModelError, first_line
from bsmamba2.files.cache import cache_folder, read_record, shared_folder, write_record
from bsmamba2.files.part_file import write_atomically
from bsmamba2.files.regular_file import open_regular, read_regular
from bsmamba2.formats.manifest import MAX_JSON_BYTES, Manifest, missing_field

BACKENDS = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class BuildKey:
    """Everything that an engine depends on; a different key needs a different engine."""

    model_sha256: str
    """SHA-256 of all bytes of the model."""
    backend: str
    version: str
    """Version of the backend; an engine runs only on the version that built it."""
    gpus: tuple[str, ...]
    """Compute capabilities, e.g. ``sm89``; or the name of the GPU that it was built on."""
    batch: int
    """The largest batch."""
    frames: int
    """The most frames per run."""
    target: str = "tensorrt"
    """Target of the ONNX file that it was built from."""

    def matches_request(self, other: BuildKey) -> bool:
        """Whether both keys are equal except for the model's bytes and the backend's version."""
        return self == replace(other, model_sha256=self.model_sha256, version=self.version)


@dataclass(frozen=True)
class EngineFile:
    """An engine file and its description."""

    path: Path
    manifest: Manifest
    key: BuildKey
    sha256: str

    def write_description(self) -> None:
        """Writes the JSON next to the engine, and records that this user built it.

        Raises:
            ModelError: the JSON cannot be written.
        """
        content = {
            "manifest": json.loads(self.manifest.to_json()),
            "key": asdict(self.key),
            "sha256": self.sha256,
        }
        path = description_path(self.path)
        try:
            write_atomically(path, json.dumps(content).encode())
        except OSError as error:
            raise ModelError(
                f"{path} cannot be written ({first_line(error)}): choose another folder"
            ) from None
        write_record(_trusted_path(self.sha256), {"sha256": self.sha256})

    def require_trust(self, trust_engine: bool = False) -> bytes:
        """Requires the unchanged engine, built by this user or explicitly trusted.

        Returns:
            The engine, which must be loaded from these bytes: the file may change later.

        Raises:
            ModelError: the engine is missing, changed or untrusted; the message states the fix.
        """
        try:
            with open_regular(self.path) as file:
                content = file.read()
        except OSError as error:
            raise ModelError(
                f"the engine {self.path} cannot be read ({first_line(error)}): check its name and "
                "folder"
            ) from None
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ModelError(
                f"{self.path} is not the engine that {description_path(self.path).name} describes: "
                "it was damaged or replaced; build it again with bsmamba2 build-engine"
            )
        record = _trusted_path(self.sha256)
        if not trust_engine and read_record(record) != {"sha256": self.sha256}:
            shared = shared_folder(record)
            raise ModelError(
                f"{self.path} was not built here, and an engine can run any code: build it with "
                "bsmamba2 build-engine; if you trust its author, Python loads it with the argument "
                "trust_engine"
                + (f" ({shared} is ignored, because other users can write it)" if shared else "")
            )
        return content


def description_path(engine: Path) -> Path:
    """Returns the path of an engine's JSON description."""
    return engine.with_name(engine.name + ".json")


def read_engine(path: Path) -> EngineFile:
    """Reads the description of an engine, without loading the engine.

    Raises:
        ModelError: the description is missing or damaged.
    """
    description = description_path(path)
    try:
        text = read_regular(description, MAX_JSON_BYTES)
    except OSError as error:
        raise ModelError(
            f"{path} has no {description.name} next to it ({first_line(error)}): copy both, or "
            "build it again with bsmamba2 build-engine"
        ) from None
    try:
        content = json.loads(text)
        manifest = Manifest.from_json(json.dumps(content["manifest"]))
        return EngineFile(path, manifest, _key(content["key"]), str(content["sha256"]))
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ModelError(
            f"{description} is damaged{missing_field(error)}: copy it again with its engine, or "
            "build both again with bsmamba2 build-engine"
        ) from None


def _key(fields: dict[str, Any]) -> BuildKey:
    if fields["backend"] not in BACKENDS:
        raise ValueError(f"backend {fields['backend']!r}")
    return BuildKey(
        model_sha256=str(fields["model_sha256"]),
        backend=str(fields["backend"]),
        version=str(fields["version"]),
        gpus=tuple(str(gpu) for gpu in fields["gpus"]),
        batch=int(fields["batch"]),
        frames=int(fields["frames"]),
        target=str(fields.get("target", "tensorrt")),
    )


def _trusted_path(sha256: str) -> Path:
    return cache_folder() / "engines" / f"{sha256[:64]}.json"
