"""A TensorRT engine as a file, with what must be known of it in a JSON beside it.

An engine is executable code: whoever can put one on the disk can run anything in this process. It
is loaded only if it was built here by this user, whose cache then holds its SHA-256, or if the
caller says that it is to be trusted.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bsmamba2.errors import ModelError
from bsmamba2.files.cache import cache_folder, read_record, write_record
from bsmamba2.files.hashing import file_sha256
from bsmamba2.formats.manifest import MAX_JSON_BYTES, Manifest, missing_field

BACKENDS = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class BuildKey:
    """What an engine depends on: another key is another engine."""

    model_sha256: str
    """Of all the bytes that the model is made of."""
    backend: str
    version: str
    """Of the backend; an engine runs on the version that built it."""
    gpus: tuple[str, ...]
    """Compute capabilities, e.g. ``sm89``; or the name of the card it was built on."""
    batch: int
    """The largest."""
    frames: int
    """The most of one run."""
    target: str = "tensorrt"
    """Of the ONNX that it was built from."""

    def asks_for_the_same(self, other: BuildKey) -> bool:
        """Whether only the model's bytes or the backend's version differ: then one is stale."""
        return self == replace(other, model_sha256=self.model_sha256, version=self.version)


@dataclass(frozen=True)
class EngineFile:
    """An engine and what is known of it."""

    path: Path
    manifest: Manifest
    key: BuildKey
    sha256: str

    def write_description(self) -> None:
        """Writes the JSON beside the engine, and remembers that this user built it.

        Raises:
            ModelError: it cannot be written.
        """
        content = {
            "manifest": json.loads(self.manifest.to_json()),
            "key": asdict(self.key),
            "sha256": self.sha256,
        }
        try:
            description_path(self.path).write_text(json.dumps(content), encoding="utf-8")
        except OSError as error:
            raise ModelError(f"{self.path} cannot be described: {error.strerror}") from None
        write_record(_trusted_path(self.sha256), {"sha256": self.sha256})

    def require_trust(self, trust_engine: bool = False) -> None:
        """Refuses an engine that is not as it was built, or that somebody else built.

        Raises:
            ModelError: with the line that mends it.
        """
        try:
            found = file_sha256(self.path)
        except OSError as error:
            raise ModelError(
                f"the engine {self.path} cannot be read ({error.strerror}): check its name and "
                "folder"
            ) from None
        if found != self.sha256:
            raise ModelError(
                f"{self.path} is not the engine that {description_path(self.path).name} describes: "
                "it is damaged or was exchanged; build it again with bsmamba2 build-engine"
            )
        if not trust_engine and read_record(_trusted_path(self.sha256)) is None:
            raise ModelError(
                f"{self.path} was not built here, and an engine can run any code: build it with "
                "bsmamba2 build-engine, or load it with trust_engine=True if you trust its maker"
            )


def description_path(engine: Path) -> Path:
    """Where an engine's JSON lies."""
    return engine.with_name(engine.name + ".json")


def read_engine(path: Path) -> EngineFile:
    """Reads what is known of an engine, without loading it.

    Raises:
        ModelError: there is no description beside it, or a damaged one.
    """
    beside = description_path(path)
    try:
        with beside.open("rb") as file:
            text = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ModelError(
            f"{path} has no {beside.name} beside it ({error.strerror}): copy both, or build it "
            "again with bsmamba2 build-engine"
        ) from None
    try:
        content = json.loads(text)
        manifest = Manifest.from_json(json.dumps(content["manifest"]))
        return EngineFile(path, manifest, _key(content["key"]), str(content["sha256"]))
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ModelError(
            f"{beside} is damaged{missing_field(error)}: copy it again with its engine, or build "
            "both again with bsmamba2 build-engine"
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
