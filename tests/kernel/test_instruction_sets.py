"""Tests each instruction set in a separate process, because a process chooses only once."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bsmamba2.devices.kernel import instruction_set

from .scans import REGISTER


@pytest.mark.parametrize("isa", ["avx512", "avx2", "portable"])
def test_every_instruction_set_passes_the_same_tests(
    python: Callable[..., subprocess.CompletedProcess[str]], library: Path, isa: str
) -> None:
    if isa == instruction_set():
        pytest.skip(f"the tests of this folder run on {isa} here")
    if python("-c", REGISTER.format(library), BSMAMBA2_ISA=isa).returncode:
        pytest.skip(f"this machine does not support {isa}")
    names = ("answers", "states", "threads", "gradients")
    files = [f"tests/kernel/test_{name}.py" for name in names]
    done = python("-m", "pytest", "-q", "-x", *files, BSMAMBA2_ISA=isa)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86 has several")
@pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("nm")), reason="needs CMake and nm")
def test_the_linker_cannot_merge_functions_of_two_instruction_sets(tmp_path: Path) -> None:
    names = ("avx2", "avx512", "amx", "avx512_bf16", "avx512_vnni", "avx_vnni")
    targets = [word for name in names for word in ("--target", f"bsmamba2_{name}")]
    for arguments in (["-S", ".", "-B", str(tmp_path)], ["--build", str(tmp_path), *targets]):
        subprocess.run(["cmake", *arguments], capture_output=True, check=True)
    objects = [str(path) for path in tmp_path.rglob("bsmamba2_a*.dir/**/*.o")]
    listed = subprocess.run(["nm", *objects], capture_output=True, text=True, check=True).stdout
    kinds = {line.split()[-2] for line in listed.splitlines() if len(line.split()) > 1}
    assert len(objects) == 8
    assert not kinds & {"W", "V", "u", "T"}, listed
