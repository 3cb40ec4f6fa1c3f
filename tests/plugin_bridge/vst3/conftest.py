"""The VST3 as any host calls it, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import vst3_host as host
from support.vst3_abi import UNPROCESSED, WAITING
from support.vst3_offers import OFFERS


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[host.Plugin]:
    """An instance with the latency of a server that has stopped."""
    monkeypatch.setenv("BSMAMBA2_SERVE_DIR", str(tmp_path))
    (tmp_path / "models").write_text(OFFERS)
    plugin = host.Plugin(host.bundle())
    plugin.set(WAITING, UNPROCESSED)
    yield plugin
    plugin.close()
