"""Runs: they learn, they can be stopped anywhere, and they go on to the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from bsmamba2_network import BSMamba2
from bsmamba2_training.loop import separate, train
from bsmamba2_training.run import Plan, Run, TrainingError

CPU = torch.device("cpu")
SMALL = {
    "preset": "micro",
    "steps": 6,
    "batch": 2,
    "segment_s": 0.1,
    "warm_up": 1,
    "loss_hop": 512,
    "valid_every": 4,
    "valid_s": 10,
}


def plan(**changes):
    return Plan(**(SMALL | changes))


def weights(run):
    return flat(run.average.net)


def flat(net):
    return torch.cat([value.flatten() for value in net.state_dict().values()])


def test_a_network_learns_to_tell_a_tone_from_noise(pooled, tmp_path):
    wanted = plan(steps=60, learning_rate=5e-3, valid_every=60)
    run = Run(tmp_path, wanted, CPU)
    assert train(run, pooled)
    loss = [float(row["loss"]) for row in run.rows]
    assert np.mean(loss[-15:]) < 0.6 * np.mean(loss[:5])
    assert float(run.rows[-1]["valid_usdr_db"]) > 3


def test_a_run_in_legs_ends_as_the_run_in_one(pooled, tmp_path):
    whole = Run(tmp_path / "whole", plan(), CPU)
    train(whole, pooled)
    done = False
    while not done:
        legs = Run(tmp_path / "legs", plan(), CPU)
        done = train(legs, pooled, minutes=0)
    assert torch.equal(weights(whole), weights(legs))
    assert [row["loss"] for row in whole.rows] == [row["loss"] for row in legs.rows]


def test_processes_that_mix_change_nothing(pooled, tmp_path):
    alone, together = (Run(tmp_path / name, plan(), CPU) for name in ("alone", "together"))
    train(alone, pooled)
    train(together, pooled, workers=2)
    assert torch.equal(weights(alone), weights(together))


@pytest.mark.parametrize(("save_every_s", "kills"), [(0.0, 3), (0.05, 1), (1e9, 1)])
def test_a_run_killed_at_random_moments_ends_as_the_run_that_was_not(
    pooled, tmp_path, micro, save_every_s, kills
):
    wanted = plan(steps=60, valid_every=100)
    whole, killed = (Run(tmp_path / name, wanted, CPU) for name in ("whole", "killed"))
    train(whole, pooled)
    for moment in np.random.default_rng(kills).integers(1, 12, kills):
        kill_after(killed, int(moment), pooled, micro, save_every_s)
        killed = Run(tmp_path / "killed", wanted, CPU)
        assert killed.step < wanted.steps
    train(killed, pooled)
    assert torch.equal(weights(whole), weights(killed))
    assert [int(row["step"]) for row in killed.rows] == list(range(wanted.steps))


def kill_after(run, steps, dataset, micro, save_every_s):
    """Goes on with a run in another process, and kills that so many steps later."""
    curve, started = run.folder / "curve.csv", len(run.rows)
    given = (str(run.folder), str(dataset), str(save_every_s))
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD, *given],
        env=os.environ | {"MICRO": micro.to_json()},
    )
    while len(curve.read_text().splitlines()) < 1 + started + steps:
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


def test_a_run_remembers_the_weights_that_it_began_with(tmp_path, micro):
    BSMamba2(micro).save(tmp_path / "first.safetensors")
    began = Run(tmp_path / "run", plan(), CPU, [tmp_path / "first.safetensors"])
    (tmp_path / "first.safetensors").unlink()
    resumed = Run(tmp_path / "run", None, CPU, [tmp_path / "first.safetensors"])
    assert torch.equal(weights(began), weights(resumed))


def test_a_run_begins_with_the_mean_of_several_networks(tmp_path, micro):
    nets = [BSMamba2(micro), BSMamba2(micro)]
    paths = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for net, path in zip(nets, paths, strict=True):
        net.save(path)
    began = Run(tmp_path / "run", plan(), CPU, paths)
    torch.testing.assert_close(weights(began), (flat(nets[0]) + flat(nets[1])) / 2)


def test_a_batch_in_parts_is_the_batch_at_once(pooled, tmp_path):
    once = Run(tmp_path / "once", plan(batch=3, steps=2, streaming=0), CPU)
    parts = Run(tmp_path / "parts", plan(batch=3, steps=2, streaming=0, parts=2), CPU)
    train(once, pooled)
    train(parts, pooled)
    torch.testing.assert_close(weights(once), weights(parts), atol=1e-6, rtol=1e-3)
    losses = [float(run.rows[1]["loss"]) for run in (once, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_model_can_be_loaded_after_any_leg(pooled, tmp_path):
    run = Run(tmp_path, plan(), CPU)
    train(run, pooled, minutes=0)
    kept = BSMamba2.load(tmp_path / "model.safetensors")
    for ours, theirs in zip(kept.parameters(), run.average.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_another_plan_in_the_same_folder_is_refused_by_name(tmp_path):
    Run(tmp_path, plan(), CPU)
    with pytest.raises(TrainingError, match="batch, seed differ"):
        Run(tmp_path, plan(batch=3, seed=1), CPU)


def test_a_folder_without_a_run_needs_a_preset(tmp_path):
    with pytest.raises(TrainingError, match="name a preset"):
        Run(tmp_path, None, CPU)


def test_a_damaged_state_is_an_error_not_a_fresh_start(pooled, tmp_path):
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
    ],
)
def test_a_plan_names_what_is_out_of_range(wrong):
    with pytest.raises(TrainingError, match=next(iter(wrong))):
        plan(**wrong)


def test_the_rate_rises_stays_and_falls():
    wanted = plan(steps=100, warm_up=10, decay=0.2)
    rates = [wanted.rate(step) / wanted.learning_rate for step in (0, 9, 50, 90, 99)]
    assert rates == pytest.approx([0.1, 1, 1, 0.5, 0.05])


class Fixed:
    """Draws the same number always; a stand-in for the generator of grids."""

    def __init__(self, value):
        self.value = value

    def uniform(self, low, high):
        return self.value

    def random(self):
        return 0.0


def test_a_grid_longer_than_the_item_is_the_whole_item(micro):
    torch.manual_seed(0)
    net = BSMamba2(micro)
    waveform = torch.randn(1, 2, 3000)
    whole = separate(net, waveform, 0.0, Fixed(0))
    streamed = separate(net, waveform, 1.0, Fixed(np.log(1000)))
    torch.testing.assert_close(whole, streamed, atol=1e-5, rtol=1e-4)


def test_a_short_lookahead_changes_what_the_network_sees(micro):
    torch.manual_seed(0)
    net = BSMamba2(micro)
    waveform = torch.randn(1, 2, 3000)
    whole = separate(net, waveform, 0.0, Fixed(0))
    streamed = separate(net, waveform, 1.0, Fixed(np.log(5.5)))
    assert streamed.shape == whole.shape
    assert not torch.allclose(whole, streamed, atol=1e-3)


def test_bf16_rounds_products_but_not_scans(micro):
    torch.manual_seed(0)
    net = BSMamba2(micro)
    waveform = torch.randn(1, 2, 3000)
    exact = separate(net, waveform, 0.0, Fixed(0))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = separate(net, waveform, 0.0, Fixed(0))
    error = (rounded - exact).square().sum() / exact.square().sum()
    assert 1e-9 < float(error.detach()) < 1e-3
