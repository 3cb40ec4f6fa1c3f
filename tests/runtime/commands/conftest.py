"""A published model on a server of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.published import PublishedVoice


@pytest.fixture
def voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedVoice:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("bsmamba2.models.download.PAUSE", 0.0)
    return PublishedVoice(monkeypatch)
