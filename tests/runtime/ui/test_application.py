"""What the server of the page answers, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from support.ui_server import UiServer

ROOT = Path(__file__).parents[3]


def get(ui: UiServer, path: str, **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False  # no proxy
        request = requests.Request("GET", ui.url, headers=headers).prepare()
        request.url = ui.url + path  # as it is: requests would shorten ../
        return session.send(request, timeout=300)


def test_the_page_may_load_nothing_from_elsewhere(ui: UiServer) -> None:
    answer = get(ui, "")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self' ")
    assert "http" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "192.0.2.1"])
def test_another_name_for_this_machine_is_refused(ui: UiServer, host: str) -> None:
    assert get(ui, "", Host=host).status_code == 400


def test_another_page_cannot_call_this_one(ui: UiServer) -> None:
    answer = get(ui, "config", Origin="https://evil.example")
    assert answer.headers.get("access-control-allow-origin") not in ("*", "https://evil.example")


@pytest.mark.parametrize(
    "path",
    [
        "results/x/0/report",
        "results//0/0",
        "results/x/0/0",
        "results/x/-1/0",
        "results/x/0/..%2f..%2fetc%2fpasswd",
        "results/../../../etc/passwd",
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=../../../etc/passwd",
        f"gradio_api/file={ROOT / 'pyproject.toml'}",
        "gradio_api/file=pyproject.toml",
        "docs",
        "monitoring",
    ],
)
def test_no_file_of_the_machine_is_served(ui: UiServer, path: str) -> None:
    answer = get(ui, path)
    assert answer.status_code in (400, 401, 403, 404, 422)
    assert "root:" not in answer.text
    assert "[project]" not in answer.text


def function(ui: UiServer, name: str) -> int:
    """Returns the number of a function of the page."""
    functions = get(ui, "config").json()["dependencies"]
    return int(next(each["id"] for each in functions if each["api_name"] == name))


def test_the_page_may_ask_whether_its_songs_were_removed(ui: UiServer) -> None:
    body = {"data": [], "fn_index": function(ui, "notice"), "session_hash": "new"}
    answer = requests.post(f"{ui.url}gradio_api/run/predict", json=body, timeout=300)
    assert answer.status_code == 200
    assert '"value"' not in answer.text  # nothing changes


def test_an_upload_without_a_length_is_refused(ui: UiServer) -> None:
    kind = {"content-type": "multipart/form-data; boundary=x"}
    parts = iter([b"--x--"])  # sent in chunks
    answer = requests.post(f"{ui.url}gradio_api/upload", data=parts, headers=kind, timeout=300)
    assert (answer.status_code, answer.text) == (411, "state the length of the upload")


def test_a_path_of_the_machine_is_no_song(ui: UiServer) -> None:
    song = {"path": str(ROOT / "README.md"), "meta": {"_type": "gradio.FileData"}}
    data = [[song], "small", "auto", ["vocals"], "FLAC"]
    body = {"data": data, "fn_index": function(ui, "run"), "session_hash": "stranger"}
    joined = requests.post(f"{ui.url}gradio_api/queue/join", json=body, timeout=300)
    stream = get(ui, "gradio_api/queue/data?session_hash=stranger").text
    assert joined.status_code == 200
    assert '"success":false' in stream
    assert "it was not uploaded by a user" in stream
