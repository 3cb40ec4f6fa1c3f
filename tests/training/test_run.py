"""Runs: they learn, can be stopped at any time, and resume to the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bsmamba2.errors import AudioError
from bsmamba2_network import BSMamba2, Config
from bsmamba2_training.loop import _loss_terms, separate, train
from bsmamba2_training.run import Plan, Run, TrainingError

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "preset": "micro",
    "steps": 6,
    "batch": 2,
    "segment_s": 0.1,
    "warm_up": 1,
    "loss_hop": 512,
    "valid_every": 4,
    "valid_s": 10,
}


def plan(**changes: Any) -> Plan:
    return Plan(**(SMALL | changes))


def weights(run: Run) -> Tensor:
    return flat(run.average.net)


def flat(net: BSMamba2) -> Tensor:
    return torch.cat([value.flatten() for value in net.state_dict().values()])


def test_a_network_learns_to_separate_a_tone_from_noise(pooled: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, plan(steps=60, learning_rate=5e-3, valid_every=60), CPU)
    assert train(run, pooled)
    loss = [float(row["loss"]) for row in run.rows]
    assert np.mean(loss[-15:]) < 0.6 * np.mean(loss[:5])
    assert float(run.rows[-1]["valid_usdr_db"]) > 3


def test_a_run_in_several_legs_ends_with_the_same_weights_as_a_run_in_one(
    pooled: Path, tmp_path: Path
) -> None:
    whole = Run(tmp_path / "whole", plan(), CPU)
    train(whole, pooled)
    is_done = False
    while not is_done:
        legs = Run(tmp_path / "legs", plan(), CPU)
        is_done = train(legs, pooled, minutes=0)
    assert torch.equal(weights(whole), weights(legs))
    assert [row["loss"] for row in whole.rows] == [row["loss"] for row in legs.rows]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2:UserWarning")  # on one core
def test_the_number_of_mixing_processes_does_not_change_the_weights(
    pooled: Path, tmp_path: Path
) -> None:
    one, several = (Run(tmp_path / name, plan(), CPU) for name in ("one", "several"))
    train(one, pooled)
    train(several, pooled, workers=2)
    assert torch.equal(weights(one), weights(several))


@pytest.mark.parametrize(
    ("save_every_s", "kills", "steps"),
    [
        pytest.param(0.0, 3, 60, marks=pytest.mark.slow),
        (0.05, 1, 24),
        pytest.param(1e9, 1, 60, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_random_moments_ends_with_the_weights_of_an_uninterrupted_run(
    pooled: Path, tmp_path: Path, micro: Config, save_every_s: float, kills: int, steps: int
) -> None:
    long_plan = plan(steps=steps, valid_every=100)
    whole, killed = (Run(tmp_path / name, long_plan, CPU) for name in ("whole", "killed"))
    train(whole, pooled)
    for moment in np.random.default_rng(kills).integers(1, 12, kills):
        kill_after(killed, int(moment), pooled, micro, save_every_s)
        killed = Run(tmp_path / "killed", long_plan, CPU)
        assert killed.step < long_plan.steps
    train(killed, pooled)
    assert torch.equal(weights(whole), weights(killed))
    assert [int(row["step"]) for row in killed.rows] == list(range(long_plan.steps))


def kill_after(run: Run, steps: int, dataset: Path, micro: Config, save_every_s: float) -> None:
    """Resumes a run in another process, and kills that process after some steps."""
    curve, rows_before = run.folder / "curve.csv", len(run.rows)
    arguments = (str(run.folder), str(dataset), str(save_every_s))
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD, *arguments],
        env=os.environ | {"MICRO": micro.to_json()},
    )
    while len(curve.read_text().splitlines()) < 1 + rows_before + steps:
        assert child.poll() is None, "the child ended before it was killed"
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


CHILD = """
import os, pathlib, sys, torch
from bsmamba2_network import PRESETS, Config
PRESETS["micro"] = Config.from_json(os.environ["MICRO"])
from bsmamba2_training.loop import train
from bsmamba2_training.run import Run
folder, dataset = map(pathlib.Path, sys.argv[1:3])
torch.set_num_threads(1)
train(Run(folder, None, torch.device("cpu")), dataset, save_every_s=float(sys.argv[3]))
"""


def test_a_resumed_run_does_not_need_its_initial_weights(tmp_path: Path, micro: Config) -> None:
    BSMamba2(micro).save(tmp_path / "first.safetensors")
    started = Run(tmp_path / "run", plan(), CPU, [tmp_path / "first.safetensors"])
    (tmp_path / "first.safetensors").unlink()
    resumed = Run(tmp_path / "run", None, CPU, [tmp_path / "first.safetensors"])
    assert torch.equal(weights(started), weights(resumed))


def test_a_run_starts_from_the_mean_of_several_networks(tmp_path: Path, micro: Config) -> None:
    nets = [BSMamba2(micro), BSMamba2(micro)]
    paths = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for net, path in zip(nets, paths, strict=True):
        net.save(path)
    started = Run(tmp_path / "run", plan(), CPU, paths)
    torch.testing.assert_close(weights(started), (flat(nets[0]) + flat(nets[1])) / 2)


def test_a_batch_in_parts_gives_the_same_weights_as_a_whole_batch(
    pooled: Path, tmp_path: Path
) -> None:
    whole = Run(tmp_path / "whole", plan(batch=3, steps=2, streaming=0), CPU)
    parts = Run(tmp_path / "parts", plan(batch=3, steps=2, streaming=0, parts=2), CPU)
    train(whole, pooled)
    train(parts, pooled)
    torch.testing.assert_close(weights(whole), weights(parts), atol=1e-6, rtol=1e-3)
    losses = [float(run.rows[1]["loss"]) for run in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_model_file_contains_the_moving_average_after_each_leg(
    pooled: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, plan(), CPU)
    train(run, pooled, minutes=0)
    saved = BSMamba2.load(tmp_path / "model.safetensors")
    for in_file, in_memory in zip(saved.parameters(), run.average.net.parameters(), strict=True):
        assert torch.equal(in_file, in_memory)


def test_another_plan_in_the_same_folder_is_refused_with_the_differences(tmp_path: Path) -> None:
    Run(tmp_path, plan(), CPU)
    with pytest.raises(TrainingError, match="got other values for batch, seed: "):
        Run(tmp_path, plan(batch=3, seed=1), CPU)


def test_a_folder_without_a_run_needs_a_preset(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a preset to start a new run"):
        Run(tmp_path, None, CPU)


def test_a_damaged_state_is_an_error_and_not_a_fresh_start(pooled: Path, tmp_path: Path) -> None:
    train(Run(tmp_path, plan(), CPU), pooled, minutes=0)
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(TrainingError, match="cannot be read"):
        Run(tmp_path, plan(), CPU)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"streaming": 2},
        {"precision": "fp8"},
        {"valid_every": 0},
        {"seed": -1},
        {"loss_hop": 0},
        {"parts": 3},
        {"silence_rise": 1.5},
        {"sdr": -1},
        {"singers": 1.5},
        {"songs": 0.8, "singers": 0.3},
        {"stereo": -0.1},
    ],
)
def test_a_value_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match=next(iter(wrong))):
        plan(**wrong)


def test_the_learning_rate_rises_stays_constant_and_falls() -> None:
    schedule = plan(steps=100, warm_up=10, decay=0.2)
    rates = [schedule.rate(step) / schedule.learning_rate for step in (0, 9, 50, 90, 99)]
    assert rates == pytest.approx([0.1, 1, 1, 0.5, 0.05])


def test_the_weight_of_silence_rises_to_its_value() -> None:
    schedule = plan(steps=100, silence=0.2, silence_rise=0.5, segment_s=1)
    weights = [schedule.silence_weight(step) for step in (0, 24, 49, 99)]
    assert weights == pytest.approx([0.004, 0.1, 0.2, 0.2])
    assert plan(silence=0.2, segment_s=1).silence_weight(0) == 0.2


def test_validation_reports_the_level_of_the_voice_and_its_leakage(
    pooled: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, plan(steps=1, valid_every=1), CPU)
    train(run, pooled)
    row = run.rows[-1]
    assert -100 < float(row["valid_level_db"]) < 10
    assert -60 < float(row["valid_leakage_db"]) < 10


def test_a_run_with_singers_needs_a_data_set_that_has_some(pooled: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="train/singers and train/songs"):
        train(Run(tmp_path, plan(singers=0.5), CPU), pooled)


def test_nothing_counts_where_the_vocals_are_not_known(tmp_path: Path) -> None:
    run = Run(tmp_path, plan(sdr=0.1, silence=0.1, segment_s=0.6, streaming=0), CPU)
    mixture, vocals = torch.randn(2, 1, 2, 26460, generator=torch.Generator().manual_seed(0))
    known = torch.zeros(1, 1, 26460)
    known[..., 22050:] = 1
    changed = torch.where(known > 0, vocals, 7.0)
    terms, same = (
        _loss_terms(run, mixture, target, known, np.random.default_rng(0))
        for target in (vocals, changed)
    )
    assert torch.equal(terms, same)
    assert float(terms[2].detach()) == 0


class ConstantGenerator(np.random.Generator):
    """A random generator that always draws the same block and lookahead."""

    def __init__(self, frames: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.frames = frames

    def uniform(self, *_: Any, **__: Any) -> Any:
        return np.log(self.frames)

    def random(self, *_: Any, **__: Any) -> Any:
        return 0.0


def test_a_block_longer_than_the_item_gives_the_result_of_the_whole_item(micro: Config) -> None:
    torch.manual_seed(0)
    net = BSMamba2(micro)
    waveform = torch.randn(1, 2, 3000)
    whole = separate(net, waveform, 0.0, ConstantGenerator(1))
    streamed = separate(net, waveform, 1.0, ConstantGenerator(1000))
    torch.testing.assert_close(whole, streamed, atol=1e-5, rtol=1e-4)


def test_a_short_lookahead_changes_the_output(micro: Config) -> None:
    torch.manual_seed(0)
    net = BSMamba2(micro)
    waveform = torch.randn(1, 2, 3000)
    whole = separate(net, waveform, 0.0, ConstantGenerator(1))
    streamed = separate(net, waveform, 1.0, ConstantGenerator(5.5))
    assert streamed.shape == whole.shape
    assert not torch.allclose(whole, streamed, atol=1e-3)


def test_bf16_rounds_products_but_not_scans(micro: Config) -> None:
    torch.manual_seed(0)
    net = BSMamba2(micro)
    waveform = torch.randn(1, 2, 3000)
    exact = separate(net, waveform, 0.0, ConstantGenerator(1))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = separate(net, waveform, 0.0, ConstantGenerator(1))
    error = (rounded - exact).square().sum() / exact.square().sum()
    assert 1e-9 < float(error.detach()) < 1e-3
