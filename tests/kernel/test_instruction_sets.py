"""Every instruction set, each in a process of its own: the choice is made once."""

from __future__ import annotations

import pytest

from .scans import REGISTER


@pytest.mark.parametrize("isa", ["avx512", "avx2", "portable"])
def test_every_instruction_set_passes_the_same_tests(python, library, isa):
    if python("-c", REGISTER.format(library), BSMAMBA2_ISA=isa).returncode:
        pytest.skip(f"this machine has no {isa}")
    files = [f"tests/kernel/test_{name}.py" for name in ("answers", "states", "threads")]
    done = python("-m", "pytest", "-q", "-x", *files, BSMAMBA2_ISA=isa)
    assert done.returncode == 0, done.stdout
