"""benchmarks/gpu.py, as far as it goes without a GPU: its numbers, by the driver on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bsmamba2 import kernel

ROOT = Path(__file__).parents[2]
RUN = """
import sys


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        missing = ("soundfile", "soxr", "mutagen", "platformdirs", "click", "rich")
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, NotInstalled())
sys.path.insert(0, "benchmarks")
import gpu  # which knows how to do without them
import gpu_chip, gpu_network, gpu_scans, torch

gpu_chip.DEVICE = "cpu"
gpu_scans.LENGTHS, gpu_scans.SIZES = ((1, 0), (2, 3), (1, 70)), ((3, 64), (1, 128))
ours = gpu.Kernel(gpu.cuda.load(gpu.kernel.library()))
rows = gpu.check_scan(ours)
gpu.show("numbers", rows)
assert all(row["ok"] for row in rows)
gpu.mamba2_scan.register_kernel("cpu")(ours)
net, noise = gpu.BSMamba2.untrained("tiny").eval(), torch.rand(1, 2, 4000) - 0.5
ours.states, ours.plain = False, True
wanted = net(noise).detach()
assert gpu_chip.snr_db(wanted, gpu_network.separate(net, noise, "fp32")) > 100
ours.plain = False
assert gpu_chip.snr_db(wanted, gpu_network.separate(net, noise, "fp32")) > 90
whose, run = gpu_scans.mamba_ssm_scan()
assert run or whose.startswith("not installed")
moved, operations = gpu_scans.scan_floor(62, 801, torch.bfloat16)
assert 3.3e8 < moved < 3.5e8 and 1e10 < operations < 1e11
"""


@pytest.mark.skipif(kernel.library() is None, reason="the kernels are not installed")
def test_the_benchmark_checks_the_kernels_through_pytorch(fake_driver):
    known = {**os.environ, "LD_LIBRARY_PATH": str(fake_driver)}
    done = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, text=True, env=known, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_gpu_it_says_so():
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (
        2,
        "benchmarks/gpu.py needs an NVIDIA GPU that PyTorch can use\n",
    )
