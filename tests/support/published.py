"""A published model on a server of this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.numpy
from click.testing import Result

from bsmamba2.models import registry
from bsmamba2.models.registry import Published
from support.commands import run_command
from support.models import random_weights
from support.server import Behaviour, Server


class PublishedVoice:
    """``voice(behaviour, ...)`` runs ``models fetch voice`` with a server that behaves like this.

    The model ``voice`` is the only one that is published.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.content = safetensors.numpy.save(random_weights())
        self._sha256 = hashlib.sha256(self.content).hexdigest()
        self._publish("https://127.0.0.1/voice.safetensors")

    def __call__(self, *behaviours: Behaviour) -> Result:
        with Server(self.content, behaviours) as server:
            self._publish(server.url)
            return run_command("models", "fetch", "voice")

    @property
    def path(self) -> Path:
        """Where the model is once it is downloaded."""
        return self._model.path

    def _publish(self, url: str) -> None:
        size = len(self.content)
        self._model = Published("voice", url, size, self._sha256, "none", "vocals")
        self._monkeypatch.setattr(registry, "PUBLISHED", (self._model,))
