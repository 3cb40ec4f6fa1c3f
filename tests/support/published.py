"""A published model on a server of this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from click.testing import Result

from bsmamba2.models import registry
from bsmamba2.models.cached_file import CachedFile, cached_files
from bsmamba2.models.catalogue import Published, PublishedFile, Source
from support.commands import run_command
from support.models import random_weights
from support.server import Behaviour, Server


def make_published(
    name: str = "voice", url: str = "https://example.org/x.ckpt", **changes: Any
) -> Published:
    """A published model of one file; ``size`` and ``sha256`` are the file's."""
    source = Source(url, changes.pop("size", 5), changes.pop("sha256", "a" * 64))
    known: dict[str, Any] = {
        "family": "bs_mamba2",
        "purpose": "vocals",
        "stems": ("vocals",),
        "files": (PublishedFile((source,), ("vocals",)),),
        "licence": "MIT",
    }
    return Published(name, **(known | changes))


def cached_file(model: Published) -> CachedFile:
    """The first file of a model."""
    return next(cached_files(model))


class PublishedVoice:
    """``voice(behaviour, ...)`` runs ``models fetch voice`` with a server that behaves like this.

    The model ``voice`` is the only one that is published.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.content = safetensors.numpy.save(random_weights())
        self.facts: dict[str, Any] = {
            "size": len(self.content),
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "licence": "none",
        }
        """What is published."""
        self._publish("https://127.0.0.1/voice.safetensors")

    def __call__(self, *behaviours: Behaviour) -> Result:
        with Server(self.content, behaviours) as server:
            self._publish(server.url)
            return run_command("models", "fetch", "voice")

    @property
    def path(self) -> Path:
        """Where the model is once it is downloaded."""
        return self.cached.path

    @property
    def cached(self) -> CachedFile:
        """Its only file."""
        return cached_file(self._model)

    def _publish(self, url: str) -> None:
        self._model = make_published("voice", url, **self.facts)
        self._monkeypatch.setattr(registry, "PUBLISHED", (self._model,))
