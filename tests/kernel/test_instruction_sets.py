"""Every instruction set, each in a process of its own: the choice is made once."""

from __future__ import annotations

import platform
import shutil
import subprocess

import pytest

from .scans import REGISTER


@pytest.mark.parametrize("isa", ["avx512", "avx2", "portable"])
def test_every_instruction_set_passes_the_same_tests(python, library, isa):
    if python("-c", REGISTER.format(library), BSMAMBA2_ISA=isa).returncode:
        pytest.skip(f"this machine has no {isa}")
    names = ("answers", "states", "threads", "gradients")
    files = [f"tests/kernel/test_{name}.py" for name in names]
    done = python("-m", "pytest", "-q", "-x", *files, BSMAMBA2_ISA=isa)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 alone has several")
@pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("nm")), reason="needs CMake and nm")
def test_no_function_of_one_instruction_set_can_stand_in_for_another(tmp_path):
    targets = [word for isa in ("avx2", "avx512") for word in ("--target", f"bsmamba2_{isa}")]
    for arguments in (["-S", ".", "-B", tmp_path], ["--build", tmp_path, *targets]):
        subprocess.run(["cmake", *arguments], capture_output=True, check=True)
    objects = [str(found) for found in tmp_path.rglob("bsmamba2_avx*.dir/*.o")]
    listed = subprocess.run(["nm", *objects], capture_output=True, text=True, check=True).stdout
    kinds = {line.split()[-2] for line in listed.splitlines() if len(line.split()) > 1}
    assert len(objects) == 4
    assert not kinds & {"W", "V", "u", "T"}, listed
