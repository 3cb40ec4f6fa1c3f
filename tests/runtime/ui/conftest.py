"""The page in a process of its own, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from support.ui_server import UiServer, ui_server


@pytest.fixture(scope="session")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UiServer]:
    """A running page; skipped without gradio."""
    if find_spec("gradio") is None:
        pytest.skip("needs the extra ui")
    with ui_server(tmp_path_factory.mktemp("ui")) as server:
        yield server
