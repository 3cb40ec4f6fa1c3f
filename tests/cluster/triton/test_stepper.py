"""Steps of a stream on a server that keeps the states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bsmamba2 import AudioError, DeviceError, ModelError
from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import CPU
from bsmamba2.engines.step_engine import StepEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2_cluster.triton.connection import Connection
from bsmamba2_cluster.triton.server_options import ServerOptions
from bsmamba2_cluster.triton.stepper import TritonStepper
from support.kserve import KServe, hang_up, returning


@pytest.fixture(scope="module")
def local(repository: Path) -> StepEngine:
    """The server's file in this process."""
    return StepEngine(read_onnx(repository / "tiny_streaming" / "1" / "model.onnx"))


@pytest.fixture
def stepper(shared_server: KServe, local: StepEngine) -> Iterator[TritonStepper]:
    with closing(Connection(ServerOptions(shared_server.url, deadline_s=30))) as connection:
        yield TritonStepper(connection, "tiny_streaming", local.manifest, CPU)
    shared_server.faults.clear()
    shared_server.models["tiny_streaming"].forget_streams()


def frames(count: int, batch: int = 1, seed: int = 0) -> Audio:
    random = np.random.default_rng(seed)
    return random.uniform(-1, 1, (batch, 2, count, 1025, 2)).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_states_stay_on_the_server(
    batch: int, stepper: TritonStepper, local: StepEngine
) -> None:
    expected = local.another()
    for seed in range(3):
        step = frames(4, batch, seed), frames(2, batch, seed + 10)
        for one, other in zip(expected.step(*step), stepper.step(*step), strict=True):
            assert snr_db(one, other) >= 90


def test_the_last_step_may_have_no_block(stepper: TritonStepper, local: StepEngine) -> None:
    expected = local.another()
    for step in ((frames(2), frames(1)), (frames(0), frames(1))):
        assert snr_db(expected.step(*step)[1], stepper.step(*step)[1]) >= 90


def test_a_whole_spectrum_touches_no_stream(stepper: TritonStepper, local: StepEngine) -> None:
    first = frames(3), frames(1)
    stepper.step(*first)
    expected = local.another()
    expected.step(*first)
    assert snr_db(local.whole(frames(5)), stepper.whole(frames(5))) >= 90
    assert snr_db(expected.step(*first)[0], stepper.step(*first)[0]) >= 90


def test_streams_do_not_mix(stepper: TritonStepper, local: StepEngine) -> None:
    other, expected = stepper.another(), local.another()
    for seed in range(2):
        other.step(frames(3, seed=seed + 5), frames(1))
        step = frames(3, seed=seed), frames(1)
        assert snr_db(expected.step(*step)[0], stepper.step(*step)[0]) >= 90


def test_a_reset_frees_the_states_and_starts_again_from_zeros(
    stepper: TritonStepper, shared_server: KServe
) -> None:
    first = stepper.step(frames(3), frames(1))
    stepper.reset()
    second = stepper.step(frames(3), frames(1))
    assert np.array_equal(first[0], second[0])
    stepper.reset()
    stepper._connection.close()  # waits for what was sent
    assert shared_server.models["tiny_streaming"].streams == 0


def test_a_stream_that_the_server_lost_has_to_be_reset(
    stepper: TritonStepper, shared_server: KServe
) -> None:
    stepper.step(frames(3), frames(1))
    shared_server.models["tiny_streaming"].forget_streams()
    with pytest.raises(DeviceError, match="no longer has the states .*: .* reset the stream"):
        stepper.step(frames(3), frames(1))
    with pytest.raises(DeviceError, match="failed in an earlier step .*: reset the stream"):
        stepper.step(frames(3), frames(1))
    stepper.reset()
    assert stepper.step(frames(3), frames(1))[0].shape == (1, 1, 2, 3, 1025, 2)


def test_a_step_whose_answer_was_lost_is_not_repeated(
    stepper: TritonStepper, shared_server: KServe
) -> None:
    sent = len(shared_server.inferences)
    shared_server.faults.append(hang_up)
    with pytest.raises(DeviceError, match="the connection to .* failed"):
        stepper.step(frames(3), frames(1))
    with pytest.raises(DeviceError, match="failed in an earlier step"):
        stepper.step(frames(3), frames(1))
    assert len(shared_server.inferences) == sent + 1


def test_another_shape_is_refused(stepper: TritonStepper, shared_server: KServe) -> None:
    shared_server.faults.append(returning((1, 1), name="block_stems"))
    with pytest.raises(ModelError):
        stepper.step(frames(3), frames(1))


def test_a_batch_may_not_change_during_a_stream(stepper: TritonStepper) -> None:
    stepper.step(frames(3), frames(1))
    with pytest.raises(AudioError, match="must have the stream's batch, 1; got 2"):
        stepper.step(frames(3, 2), frames(1, 2))
