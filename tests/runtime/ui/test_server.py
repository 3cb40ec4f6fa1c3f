"""The server: reached from this machine only, and gone without a trace after Ctrl-C."""

from __future__ import annotations

import signal
import socket
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from bsmamba2 import Error
from bsmamba2.ui import server
from support.ui_server import UiServer, ui_server


def test_only_this_machine_can_connect() -> None:
    with closing(server.listen(0)) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_replaced_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with closing(server.listen(0)) as listener:
        taken = listener.getsockname()[1]
        monkeypatch.setattr(server, "PORT", taken)
        with closing(server.listen(None)) as other:
            assert other.getsockname()[1] not in (0, taken)
        with pytest.raises(Error, match=f"port must be free; got {taken} .*: choose another"):
            server.listen(taken)


def test_the_running_page_is_not_reachable_from_the_network(ui: UiServer) -> None:
    port = urlsplit(ui.url).port
    with closing(socket.create_connection(("127.0.0.1", port or 0), 10)):
        pass
    with pytest.raises(OSError), closing(socket.create_connection(("127.0.0.2", port or 0), 10)):  # noqa: PT011 - of any kind
        pass


@pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra ui")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_kill_ends_the_server_and_removes_its_folder(tmp_path: Path, number: int) -> None:
    with ui_server(tmp_path) as page:
        assert page.url.startswith("http://127.0.0.1:")
        assert list(page.temporary.iterdir()) != []
        assert page.stop(number) == 0
        assert list(page.temporary.iterdir()) == []


@pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra ui")
def test_ctrl_c_while_a_tab_is_open_prints_nothing(tmp_path: Path) -> None:
    with ui_server(tmp_path) as page:
        address = f"{page.url}gradio_api/heartbeat/tab"
        with requests.get(address, stream=True, timeout=300) as tab:
            lines = tab.iter_lines()
            assert next(lines)
            assert page.stop() == 0
        assert page.errors.read_text() == ""
