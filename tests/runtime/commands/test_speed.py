"""Measuring a model: the song's time from its chunks, and its check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bsmamba2 import DeviceError, Separator
from bsmamba2.commands import speed
from bsmamba2.models.check import make_check
from bsmamba2.models.loaded_model import LoadedModel
from support.engines import StubModel, Stubs


@pytest.mark.parametrize("seconds", [0.1, 1, 1.01, 3.7])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
def test_the_chunks_of_a_song_are_those_that_run(
    stub: Stubs, seconds: float, overlap: float
) -> None:
    engine = stub.half(chunk=4410, overlap=overlap)
    Separator(engine)(np.ones((2, round(44100 * seconds)), np.float32), 44100)
    assert speed.chunks_of_song(LoadedModel(engine), seconds) == len(engine.lengths)


def test_a_measurement_states_time_memory_and_check(
    stub: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = stub.half()
    engine = stub.half(check=make_check(plain))
    monkeypatch.setattr(
        "bsmamba2.models.loaded_model.open_model", lambda *_, **__: StubModel(engine)
    )
    found = speed.measure("stub", "auto", "exact", 0)
    chunks = speed.chunks_of_song(LoadedModel(engine), 240)
    separating_s = found["song_seconds"] - found["load_seconds"]
    assert found["real_time"] == pytest.approx(240 / separating_s)
    assert separating_s > 0
    assert (found["chunks"], found["device"]) == (1, "cpu")
    assert chunks > 1
    assert found["check_db"] > 100
    assert found["memory_bytes"] is None or found["memory_bytes"] > 1 << 20


def test_a_model_whose_answer_is_wrong_is_an_error(
    stub: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = stub.half(check=make_check(stub.scaled(0.4)))
    monkeypatch.setattr(
        "bsmamba2.models.loaded_model.open_model", lambda *_, **__: StubModel(engine)
    )
    with pytest.raises(DeviceError, match="does not reproduce its check"):
        speed.measure("stub", "auto", "exact", 0)


def test_a_process_that_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(DeviceError, match="the measurement ended with status 1"):
        speed.measure_alone("small", "cpu", "exact", 0)


def test_memory_is_unknown_where_the_system_does_not_state_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(speed, "_STATUS", tmp_path / "none")
    assert speed.peak_memory() is None
