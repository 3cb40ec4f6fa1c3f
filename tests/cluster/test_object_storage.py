"""An S3 server, behaving and misbehaving."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bsmamba2_cluster import object_storage
from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.object_storage import ObjectStorage, cause
from bsmamba2_cluster.storage import StorageError
from support.commands import ENVIRONMENT
from support.faulty_proxy import FaultyProxy
from support.s3_server import SECRET, S3Server, environment


@pytest.fixture
def through(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Callable[[FaultyProxy], ObjectStorage]:
    """Opens a storage whose requests pass a proxy."""

    def opened(proxy: FaultyProxy) -> ObjectStorage:
        for name, value in environment(proxy.port).items():
            monkeypatch.setenv(name, value)
        return ObjectStorage("s3", "music", f"proxy-{proxy.port}")

    return opened


@pytest.mark.parametrize("fault", ["503", "drop before", "drop after", "drop within"])
def test_every_operation_survives_a_fault(
    through: Callable[[FaultyProxy], ObjectStorage],
    server: S3Server,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_bytes(bytes(9 << 20))
    with FaultyProxy(server.port, 0.0) as proxy:
        storage = through(proxy)
        turns = iter(range(1000))
        monkeypatch.setattr(proxy, "_choose", lambda: fault if next(turns) % 3 == 0 else "")
        assert storage.create("created", b"mine")
        assert not storage.create("created", b"other")
        storage.replace("replaced", b"1")
        storage.upload(tmp_path / "file", "uploaded")
        entry = storage.head("uploaded")
        assert entry is not None
        storage.download(entry, tmp_path / "copy")
        assert storage.copy("uploaded", "copied")
        assert sorted(e.key for page in storage.pages() for e in page) == [
            "copied", "created", "replaced", "uploaded",
        ]  # fmt: skip
        storage.delete(["copied"])
        assert storage.head("copied") is None
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("fault", ["503", "drop before", "drop after", "drop within"])
def test_a_listing_survives_a_fault_of_every_request(
    through: Callable[[FaultyProxy], ObjectStorage],
    server: S3Server,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FaultyProxy(server.port, 0.0) as proxy:
        storage = through(proxy)
        for key in ("a/1", "b/2", "b/evil\n"):
            server.request("PUT", f"/music/proxy-{proxy.port}/{key}", b"x")
        turns = iter(range(1000))
        monkeypatch.setattr(proxy, "_choose", lambda: fault if next(turns) % 2 == 0 else "")
        assert [entry.key for page in storage.pages() for entry in page] == ["a/1"]


def test_an_upload_whose_process_is_killed_leaves_no_object(
    server: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(64 << 20))
    with FaultyProxy(server.port, 1.0, delay_s=0.2) as proxy:
        proxy._choose = lambda: "slow"  # type: ignore[method-assign]
        program = "import sys; from pathlib import Path\n"
        program += "from bsmamba2_cluster.address import open_storage\n"
        program += "open_storage('s3://music/killed').upload(Path(sys.argv[1]), 'file')"
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "file")],
            env=ENVIRONMENT | environment(proxy.port),
        )
        while proxy.answered < 3 and process.poll() is None:
            pass
        process.kill()
        process.wait()
    assert process.returncode == -9
    assert list(open_storage("s3://music/killed").pages()) == []


def test_a_hostile_key_hides_only_its_own_folder_which_is_reported(server: S3Server) -> None:
    for key in ("h/a/1.flac", "h/b/2.flac", "h/b/evil\n.flac", "h/c/d/3.flac"):
        server.request("PUT", f"/music/{key}", b"x")
    refused: list[str] = []
    pages = open_storage("s3://music/h").pages(refused=lambda key, error: refused.append(key))
    found = sorted(entry.key for page in pages for entry in page)
    assert found == ["a/1.flac", "c/d/3.flac"]
    assert refused == ["b"]


def test_errors_name_the_place_and_the_cause_but_no_credentials(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    storage = ObjectStorage("s3", "music", "errors")
    with pytest.raises(StorageError) as refused:
        storage.replace("key", b"1")
    text = str(refused.value)
    assert "s3://music/errors/key cannot be written (403" in text
    for secret in (SECRET, "another-secret", server.environment["AWS_ACCESS_KEY_ID"], "Signature="):
        assert secret not in text


@pytest.mark.parametrize(
    "endpoint",
    ["http://user:hunter2@localhost:1", "http://localhost:1/?token=hunter2", "hunter2", "http://["],
)
def test_an_endpoint_with_credentials_or_without_a_host_is_refused_unquoted(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL must be an address") as refused:
        ObjectStorage("s3", "music", "").head("a")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("key", ["a%2fb", "%2e%2e/x", "a*b~`|<>^{}[]?#&=+", "é/é", " x "])
def test_an_unusual_key_is_listed_and_read_as_it_is(key: str, server: S3Server) -> None:
    folder = f"unusual-{key.encode().hex()}"
    storage = open_storage(f"s3://music/{folder}")
    server.request("PUT", f"/music/{folder}/{key}", b"x")
    (entry,) = (entry for page in storage.pages() for entry in page)
    assert entry.key == key
    assert storage.head(key) == entry


def test_a_bucket_that_does_not_exist_is_an_error_in_one_sentence(server: S3Server) -> None:
    with pytest.raises(StorageError, match="s3://no-such-bucket cannot be listed"):
        list(ObjectStorage("s3", "no-such-bucket", "").pages())


def test_what_a_server_says_in_an_error_is_not_quoted() -> None:
    error = Exception("status 403 Forbidden: <Code>AccessDenied</Code><Token>secret</Token>")
    assert cause(error) == "403 AccessDenied"
    assert cause(RuntimeError("token=secret")) == "RuntimeError"


def test_a_pickled_storage_holds_no_credentials(server: S3Server) -> None:
    storage = open_storage("s3://music/x")
    storage.head("a")
    assert storage.__reduce__() == (ObjectStorage, ("s3", "music", "x"))


def test_listings_are_read_in_pages(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "PAGE", 4)
    storage = open_storage("s3://music/pages")
    for number in range(10):
        storage.replace(f"{number}", b"")
    assert [len(page) for page in storage.pages()] == [4, 4, 2]
