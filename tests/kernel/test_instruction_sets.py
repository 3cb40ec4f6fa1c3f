"""Every instruction set, each in a process of its own: the choice is made once."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from .scans import REGISTER


@pytest.mark.parametrize("isa", ["avx512", "avx2", "portable"])
def test_every_instruction_set_passes_the_same_tests(python, library, isa):
    if python("-c", REGISTER.format(library), BSMAMBA2_ISA=isa).returncode:
        pytest.skip(f"this machine has no {isa}")
    files = [f"tests/kernel/test_{name}.py" for name in ("answers", "states", "threads")]
    done = python("-m", "pytest", "-q", "-x", *files, BSMAMBA2_ISA=isa)
    assert done.returncode == 0, done.stdout


def test_no_function_of_one_instruction_set_can_stand_in_for_another(library):
    objects = [str(o) for o in library.parent.glob("CMakeFiles/bsmamba2_avx*.dir/chunk.cpp.o")]
    if not objects or not shutil.which("nm"):
        pytest.skip("the library was not built here, or there is no nm")
    listed = subprocess.run(["nm", *objects], capture_output=True, text=True, check=True).stdout
    kinds = {line.split()[-2] for line in listed.splitlines() if len(line.split()) > 1}
    assert not kinds & {"W", "V", "u", "T"}, listed
