"""A session with bound memory: ONNX Runtime's own on the CPU, and a made-up one for CUDA graphs."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from bsmamba2.devices.device import Device
from bsmamba2.engines import ort_engine, ort_session
from bsmamba2.engines.ort_binding import REPEATS, BoundSession
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.ort_session import import_onnxruntime, open_session
from bsmamba2.errors import ModelError
from bsmamba2.formats.onnx_file import read_onnx
from support.models import gain_model


def spectrum(frames=5, seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((1, 2, frames, 9, 2)).astype(np.float32)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gain.onnx"
    path.write_bytes(gain_model())
    return read_onnx(path)


@pytest.fixture
def session(file):
    """ONNX Runtime's, on the CPU: half of the spectrum."""
    return open_session(file, "cpu")[0]


def bind(session):
    return BoundSession(import_onnxruntime(), session, ("cpu", 0), 1)


class RecordingSession:
    """A session on CUDA with graphs, as ONNX Runtime documents them: the first run of a graph's
    number runs and records, the later ones replay what was recorded. Its memory is the host's."""

    def __init__(self, session, replay=lambda output: None, fails=False, enabled=True):
        self._session, self._replay, self._fails, self._enabled = session, replay, fails, enabled
        self.asked, self.threads = [], set()
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs
        self.io_binding = session.io_binding

    def get_provider_options(self):
        return {"CUDAExecutionProvider": {"enable_cuda_graph": str(int(self._enabled))}}

    def run_with_iobinding(self, binding, options):
        graph = options.get_run_config_entry("gpu_graph_id")
        self.asked.append(graph)
        self.threads.add(threading.get_ident())
        if graph == "1" and self._fails:
            raise RuntimeError("capture failed")
        self._session.run_with_iobinding(binding)
        if self.asked.count("1") > 1 and graph == "1":
            self._replay(binding.get_outputs()[0].numpy())


def test_the_thread_of_a_session_ends_with_it(session):
    before = threading.active_count()
    bound = bind(session)
    bound.run(spectrum(5, 0))
    assert threading.active_count() == before + 1
    worker = threading.enumerate()[-1]
    del bound
    worker.join(10)
    assert not worker.is_alive()


@pytest.mark.parametrize("frames", [(5,), (5, 5, 5, 5, 5), (5, 3, 5, 5, 5, 5, 3, 1)])
def test_bound_runs_are_plain_runs(session, frames):
    bound = bind(session)
    for seed, count in enumerate(frames):
        values = spectrum(count, seed)
        np.testing.assert_array_equal(bound.run(values), 0.5 * values[:, None])


def test_what_came_out_stays_when_the_buffer_is_used_again(session):
    bound = bind(session)
    first = bound.run(spectrum(seed=0))
    bound.run(spectrum(seed=1))
    np.testing.assert_array_equal(first, 0.5 * spectrum(seed=0)[:, None])


def test_threads_take_turns(session):
    bound, wrong = bind(session), []

    def work(seed):
        for _ in range(50):
            values = spectrum(2 + seed, seed)
            if not np.array_equal(bound.run(values), 0.5 * values[:, None]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


def test_a_shape_that_keeps_coming_is_recorded_once_and_replayed(session):
    made_up = RecordingSession(session)
    bound = bind(made_up)
    for seed in range(REPEATS + 2):
        values = spectrum(seed=seed)
        np.testing.assert_array_equal(bound.run(values), 0.5 * values[:, None])
    bound.run(spectrum(3))  # the last chunk of a song: another shape
    bound.run(spectrum(5))
    record = ["1", "1"]
    assert made_up.asked == ["-1"] * REPEATS + record + ["1", "1"] + ["-1"] + ["1"]


def test_whoever_asks_one_thread_runs(session):
    """ONNX Runtime keeps what was recorded for each thread."""
    made_up = RecordingSession(session)
    bound = bind(made_up)
    for _ in range(3):
        with ThreadPoolExecutor(2) as callers:
            list(callers.map(bound.run, [spectrum()] * 4))
    assert len(made_up.threads) == 1
    assert made_up.asked.count("-1") == REPEATS


def test_without_graphs_nothing_is_recorded(session):
    made_up = RecordingSession(session, enabled=False)
    bound = bind(made_up)
    [bound.run(spectrum()) for _ in range(REPEATS + 2)]
    assert set(made_up.asked) == {"-1"}


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"fails": True}, "recording one failed: capture failed"),
        ({"replay": lambda stems: stems.fill(0)}, "a replay is 0 dB from a run"),
        ({"replay": lambda stems: stems.fill(np.nan)}, "a replay is -inf dB from a run"),
    ],
)
def test_a_graph_that_does_not_give_the_same_is_told_and_not_used(session, caplog, trouble, said):
    bound = bind(RecordingSession(session, **trouble))
    with caplog.at_level(logging.WARNING):
        for seed in range(REPEATS + 2):
            values = spectrum(seed=seed)
            np.testing.assert_array_equal(bound.run(values), 0.5 * values[:, None])
    assert [said in record.message for record in caplog.records] == [True]


def test_an_engine_on_a_card_binds_its_memory(file, monkeypatch):
    def on_card(*given, **options):
        session, _ = open_session(file, "cpu")
        return session, "cuda:1"

    def bound(ort, session, memory, stems):
        assert memory == ("cuda", 1)
        return BoundSession(ort, session, ("cpu", 0), stems)

    chunk = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    wanted = OrtEngine(file, "cpu").run(chunk)
    monkeypatch.setattr(ort_engine, "open_session", on_card)
    monkeypatch.setattr(ort_engine, "BoundSession", bound)
    np.testing.assert_array_equal(OrtEngine(file, "cuda:1").run(chunk), wanted)


class RefusingRuntime:
    """An ONNX Runtime that refuses CUDA graphs, or everything."""

    def __init__(self, refuses):
        self.refuses, self.seen = refuses, []

    def set_default_logger_severity(self, level):
        pass

    def InferenceSession(self, path, options, providers, enable_fallback):  # noqa: N802
        self.seen.append(providers[0][1])
        if self.refuses(providers[0][1]):
            raise RuntimeError("nodes on the CPU cannot be captured")
        return SimpleNamespace()


def test_where_graphs_are_refused_the_session_comes_without_them_and_says_so(file, caplog):
    ort = RefusingRuntime(lambda options: "enable_cuda_graph" in options)
    with caplog.at_level(logging.WARNING):
        ort_session._create(ort, file, None, Device("cuda", 1), graphs=True)
    assert ort.seen == [
        {"device_id": "1", "use_tf32": "0", "enable_cuda_graph": "1"},
        {"device_id": "1", "use_tf32": "0"},
    ]
    assert "ONNX Runtime refuses them: nodes on the CPU" in caplog.text


def test_a_model_that_is_refused_altogether_is_a_sentence(file, caplog):
    with pytest.raises(ModelError, match="refuses gain.onnx: nodes on the CPU"):
        ort_session._create(RefusingRuntime(lambda _: True), file, None, Device("cuda"), True)
    assert not caplog.records
