"""A session with bound memory: ONNX Runtime's on the CPU, and a mock session for CUDA graphs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bsmamba2.audio.array import Audio
from bsmamba2.devices.capture import CaptureLock
from bsmamba2.devices.device import CPU, Device
from bsmamba2.engines import ort_binding, ort_engine, ort_session
from bsmamba2.engines.ort_binding import REPEATS, BoundSession
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.ort_import import import_onnxruntime
from bsmamba2.engines.ort_session import open_session
from bsmamba2.errors import ModelError
from bsmamba2.formats.onnx_file import OnnxFile, read_onnx
from support.models import gain_model


def spectrum(frames: int = 5, seed: int = 0) -> Audio:
    random = np.random.default_rng(seed)
    return random.standard_normal((1, 2, frames, 9, 2)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> OnnxFile:
    path = tmp_path / "gain.onnx"
    path.write_bytes(gain_model())
    return read_onnx(path)


@pytest.fixture
def session(file: OnnxFile) -> Any:
    """A session of ONNX Runtime on the CPU, which halves the spectrum."""
    return open_session(file, CPU)


def bind(session: Any) -> BoundSession:
    return BoundSession(import_onnxruntime(), session, ("cpu", 0), 1)


def one(bound: BoundSession, values: Audio) -> Audio:
    """Runs the session's only input."""
    (stems,) = bound.run([values])
    return stems


class RecordingSession:
    """A mock session on CUDA with graphs, modelled on ONNX Runtime's documentation.

    The first run with a graph's number runs and records; later runs replay the recording. Memory is
    host memory. ``graphs`` lists the graph numbers of all runs, ``threads`` the threads.
    """

    def __init__(
        self,
        session: Any,
        replay: Callable[[Audio], None] = lambda output: None,
        fails: bool = False,
        enabled: bool = True,
    ) -> None:
        self._session, self._replay, self._fails, self._enabled = session, replay, fails, enabled
        self.graphs: list[str] = []
        self.threads: set[int] = set()
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs
        self.io_binding = session.io_binding

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {"CUDAExecutionProvider": {"enable_cuda_graph": str(int(self._enabled))}}

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        graph = options.get_run_config_entry("gpu_graph_id")
        self.graphs.append(graph)
        self.threads.add(threading.get_ident())
        if graph == "1" and self._fails:
            raise RuntimeError("capture failed")
        self._session.run_with_iobinding(binding)
        if self.graphs.count("1") > 1 and graph == "1":
            self._replay(binding.get_outputs()[0].numpy())


def test_the_thread_of_a_session_ends_with_it(session: Any) -> None:
    before = threading.active_count()
    bound = bind(session)
    one(bound, spectrum(5, 0))
    assert threading.active_count() == before + 1
    worker = threading.enumerate()[-1]
    del bound
    worker.join(10)
    assert not worker.is_alive()


@pytest.mark.parametrize("frames", [(5,), (5, 5, 5, 5, 5), (5, 3, 5, 5, 5, 5, 3, 1)])
def test_bound_runs_equal_plain_runs(session: Any, frames: tuple[int, ...]) -> None:
    bound = bind(session)
    for seed, count in enumerate(frames):
        values = spectrum(count, seed)
        np.testing.assert_array_equal(one(bound, values), 0.5 * values[:, None])


def test_an_output_stays_intact_when_the_buffer_is_reused(session: Any) -> None:
    bound = bind(session)
    first = one(bound, spectrum(seed=0))
    one(bound, spectrum(seed=1))
    np.testing.assert_array_equal(first, 0.5 * spectrum(seed=0)[:, None])


def test_threads_take_turns(session: Any) -> None:
    bound = bind(session)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(50):
            values = spectrum(2 + seed, seed)
            if not np.array_equal(one(bound, values), 0.5 * values[:, None]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_repeated_shape_is_recorded_once_and_replayed(session: Any) -> None:
    mock = RecordingSession(session)
    bound = bind(mock)
    for seed in range(REPEATS + 2):
        values = spectrum(seed=seed)
        np.testing.assert_array_equal(one(bound, values), 0.5 * values[:, None])
    one(bound, spectrum(3))  # the last chunk of a song: another shape
    one(bound, spectrum(5))
    record = ["1", "1"]
    assert mock.graphs == ["-1"] * REPEATS + record + ["1", "1"] + ["-1"] + ["1"]


def test_nobody_else_uses_the_card_while_a_shape_is_recorded(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, alone = CaptureLock(), list[bool]()
    monkeypatch.setattr(ort_binding, "CAPTURE", lock)
    bound = bind(RecordingSession(session, replay=lambda _: alone.append(lock.is_recording)))
    for _ in range(REPEATS + 2):
        one(bound, spectrum())
    assert alone == [True, False, False]  # the replay that is compared, and two others


def test_one_thread_runs_the_session_for_all_callers(session: Any) -> None:
    """ONNX Runtime keeps separate recordings for each thread."""
    mock = RecordingSession(session)
    bound = bind(mock)
    for _ in range(3):
        with ThreadPoolExecutor(2) as callers:
            list(callers.map(bound.run, [[spectrum()]] * 4))
    assert len(mock.threads) == 1
    assert mock.graphs.count("-1") == REPEATS


def test_without_graphs_nothing_is_recorded(session: Any) -> None:
    mock = RecordingSession(session, enabled=False)
    bound = bind(mock)
    for _ in range(REPEATS + 2):
        one(bound, spectrum())
    assert set(mock.graphs) == {"-1"}


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"fails": True}, "recording one failed: capture failed"),
        ({"replay": lambda stems: stems.fill(0)}, "agrees with a plain run only to 0 dB"),
        ({"replay": lambda stems: stems.fill(np.nan)}, "agrees with a plain run only to -inf dB"),
    ],
)
def test_a_graph_with_other_results_is_reported_and_not_used(
    session: Any, caplog: pytest.LogCaptureFixture, trouble: dict[str, Any], message: str
) -> None:
    bound = bind(RecordingSession(session, **trouble))
    with caplog.at_level(logging.WARNING):
        for seed in range(REPEATS + 2):
            values = spectrum(seed=seed)
            np.testing.assert_array_equal(one(bound, values), 0.5 * values[:, None])
    assert [message in record.message for record in caplog.records] == [True]


def test_an_engine_on_a_card_binds_its_memory(
    file: OnnxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_card(*arguments: Any, **options: Any) -> Any:
        return open_session(file, CPU)

    def bound(
        ort: Any, session: Any, memory: tuple[str, int], stems: int, stream: Any
    ) -> BoundSession:
        assert (memory, stream.handle) == (("cuda", 1), 7)
        return BoundSession(ort, session, ("cpu", 0), stems)

    chunk = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    expected = OrtEngine(file, CPU).run(chunk)
    monkeypatch.setattr(ort_engine, "open_session", on_card)
    monkeypatch.setattr(ort_engine, "BoundSession", bound)
    monkeypatch.setattr(ort_engine, "CudaStream", lambda index: SimpleNamespace(handle=7))
    np.testing.assert_array_equal(OrtEngine(file, Device("cuda", 1)).run(chunk), expected)


class RefusingRuntime:
    """A mock ONNX Runtime that refuses CUDA graphs, or everything.

    ``seen`` are the provider options of all sessions that were requested.
    """

    def __init__(self, refuses: Callable[[dict[str, str]], bool]) -> None:
        self.refuses = refuses
        self.seen: list[dict[str, str]] = []

    def set_default_logger_severity(self, level: int) -> None:
        pass

    def InferenceSession(  # noqa: N802 - onnxruntime's name
        self, path: str, options: Any, providers: list[Any], **rest: Any
    ) -> SimpleNamespace:
        self.seen.append(providers[0][1])
        if self.refuses(providers[0][1]):
            raise RuntimeError("nodes on the CPU cannot be captured")
        return SimpleNamespace()


def test_a_session_that_refuses_graphs_is_created_without_them_and_logs_it(
    file: OnnxFile, caplog: pytest.LogCaptureFixture
) -> None:
    ort = RefusingRuntime(lambda options: "enable_cuda_graph" in options)
    with caplog.at_level(logging.WARNING):
        ort_session._create(ort, file, None, Device("cuda", 1), True, False)
    assert ort.seen == [
        {"device_id": "1", "use_tf32": "0", "enable_cuda_graph": "1"},
        {"device_id": "1", "use_tf32": "0"},
    ]
    assert "ONNX Runtime refuses them: nodes on the CPU" in caplog.text


def test_a_model_that_is_refused_without_graphs_too_is_an_error(
    file: OnnxFile, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ModelError, match="refuses gain.onnx: nodes on the CPU"):
        ort_session._create(
            RefusingRuntime(lambda _: True), file, None, Device("cuda"), True, False
        )
    assert not caplog.records
