"""The cores of a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import ENVIRONMENT

PROGRAM = """
import sys; from pathlib import Path
from bsmamba2_cluster.cores import use_cores
print(sorted(use_cores(1, Path(sys.argv[1]))), flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else []) < 2,
    reason="needs two cores",
)


def test_workers_on_one_machine_take_different_cores_while_they_live(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=ENVIRONMENT, stdin=pipe, stdout=pipe, text=True)

    def cores(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline()

    first, second = start(), start()
    taken = cores(first), cores(second)
    assert taken[0] != taken[1]
    first.kill()
    first.communicate()
    third = start()
    assert cores(third) == taken[0]
    for process in (second, third):
        process.communicate()
