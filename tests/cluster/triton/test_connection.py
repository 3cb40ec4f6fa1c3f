"""Connections: retries, deadlines, TLS, threads."""

from __future__ import annotations

import gc
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bsmamba2 import DeviceError, ModelError
from bsmamba2.audio.array import Audio
from bsmamba2_cluster.triton.connection import Connection, StreamPlace
from bsmamba2_cluster.triton.server_options import ServerOptions
from support.kserve import Fault, KServe, hang_up, returning, stall, status, trickle

SPECTRUM = np.ones((1, 2, 3, 9, 2), np.float32)


@pytest.fixture
def connection(server: KServe) -> Iterator[Connection]:
    with closing(Connection(ServerOptions(server.url, deadline_s=10))) as opened:
        yield opened


def infer(connection: Connection, place: StreamPlace | None = None) -> Audio:
    """Runs ``gain``, which halves its input and adds an axis for the stems."""
    (stems,) = connection.infer("gain", {"spectrum": SPECTRUM}, ["stems"], place).result()
    return stems


def test_the_output_can_be_written(connection: Connection) -> None:
    stems = infer(connection)
    stems += 1
    assert np.array_equal(stems, np.full((1, 1, 2, 3, 9, 2), 1.5, np.float32))


@pytest.mark.parametrize("fault", [status(503), status(429), hang_up])
def test_a_temporary_failure_is_tried_again(
    fault: Fault, server: KServe, connection: Connection
) -> None:
    server.faults += [fault, fault]
    assert infer(connection).shape == (1, 1, 2, 3, 9, 2)
    assert len(server.inferences) == 3


@pytest.mark.parametrize("fault", [status(500), status(400), status(401), status(404)])
def test_a_refusal_is_not_tried_again(fault: Fault, server: KServe, connection: Connection) -> None:
    server.faults.append(fault)
    with pytest.raises((DeviceError, ModelError)):
        infer(connection)
    assert len(server.inferences) == 1


def test_the_number_of_retries_is_bounded(server: KServe) -> None:
    server.faults += [status(503)] * 9
    options = ServerOptions(server.url, retries=1)
    with closing(Connection(options)) as connection, pytest.raises(DeviceError, match="busy"):
        infer(connection)
    assert len(server.inferences) == 2


@pytest.mark.parametrize("fault", [status(503), hang_up])
def test_a_step_of_a_stream_is_sent_once(
    fault: Fault, server: KServe, connection: Connection
) -> None:
    server.faults.append(fault)
    with pytest.raises(DeviceError):
        infer(connection, StreamPlace(1, is_first=True))
    assert len(server.inferences) == 1


def test_a_stream_of_one_step_is_tried_again(server: KServe, connection: Connection) -> None:
    server.faults.append(status(503))
    infer(connection, StreamPlace(1, is_first=True, is_last=True))
    assert len(server.inferences) == 2


@pytest.mark.parametrize("fault", [stall, trickle])
def test_the_deadline_ends_a_request_however_the_server_delays(
    fault: Fault, server: KServe
) -> None:
    server.faults.append(fault)
    started = time.monotonic()
    with closing(Connection(ServerOptions(server.url, deadline_s=0.5))) as connection:
        with pytest.raises(DeviceError, match="did not answer within 0.5 s"):
            infer(connection)
        assert time.monotonic() - started < 10  # the server would take 20 s or longer
        assert infer(connection).size  # the thread opened another connection


def test_the_server_learns_the_deadline_of_a_chunk(server: KServe, connection: Connection) -> None:
    infer(connection)
    assert server.inferences[0]["timeout"] == 10_000_000


def test_headers_reach_the_server(server: KServe) -> None:
    options = ServerOptions(server.url, headers={"Authorization": "Bearer key"})
    with closing(Connection(options)) as connection:
        infer(connection)
    assert server.headers["Authorization"] == "Bearer key"


def test_a_server_that_is_down_is_named() -> None:
    options = ServerOptions("http://localhost:1", retries=1)
    expected = pytest.raises(DeviceError, match="no server answers at http://localhost:1")
    with closing(Connection(options)) as connection, expected:
        infer(connection)


@pytest.mark.parametrize(
    "fault", [returning((1,), datatype="INT32"), returning((1,), name="others")]
)
def test_an_output_of_another_type_or_name_is_refused(
    fault: Fault, server: KServe, connection: Connection
) -> None:
    server.faults.append(fault)
    with pytest.raises(ModelError, match="'gain' must return 'stems' as FP32; got"):
        infer(connection)


def test_threads_share_a_connection(connection: Connection) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: infer(connection), range(32)))
    assert all(np.array_equal(one, results[0]) for one in results)


def test_a_connection_that_is_no_longer_used_ends_its_threads(server: KServe) -> None:
    connection = Connection(ServerOptions(server.url))
    infer(connection)
    threads = connection._threads
    assert all(thread.is_alive() for thread in threads)
    del connection
    gc.collect()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signed itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "server.pem", folder / "server.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", *kind, *subject]
    files = ["-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run([*command, *files], check=True, capture_output=True)
    return paths


def test_a_trusted_server_is_reached_over_tls(
    gain_repository: Path, certificate: tuple[Path, Path]
) -> None:
    with KServe(gain_repository, certificate) as secure:
        options = ServerOptions(secure.url, ca_file=certificate[0])
        with closing(Connection(options)) as connection:
            assert infer(connection).shape == (1, 1, 2, 3, 9, 2)


def test_a_server_with_an_unknown_certificate_gets_no_request(
    gain_repository: Path, certificate: tuple[Path, Path]
) -> None:
    with KServe(gain_repository, certificate) as secure:
        expected = pytest.raises(DeviceError, match="is not trusted .*ca_file")
        with closing(Connection(ServerOptions(secure.url))) as connection, expected:
            infer(connection)
        assert secure.inferences == []


def test_a_certificate_of_another_host_is_not_trusted(
    gain_repository: Path, certificate: tuple[Path, Path]
) -> None:
    with KServe(gain_repository, certificate) as secure:
        options = ServerOptions(
            secure.url.replace("localhost", "127.0.0.1"), ca_file=certificate[0]
        )
        with (
            closing(Connection(options)) as connection,
            pytest.raises(DeviceError, match="trusted"),
        ):
            infer(connection)


def test_a_server_without_tls_is_refused_at_https(server: KServe) -> None:
    options = ServerOptions(server.url.replace("http:", "https:"), retries=0)
    with closing(Connection(options)) as connection, pytest.raises(DeviceError):
        infer(connection)
    assert server.inferences == []
