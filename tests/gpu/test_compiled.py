"""What is shipped: compiled for every GPU that is named, from this source, with nothing spilled."""

from __future__ import annotations

import importlib.util
import json
import re
from importlib import metadata
from pathlib import Path

import pytest

from bsmamba2.devices import cuda

ROOT = Path(__file__).parents[2]
FACTS = json.loads((cuda.kernels() / "kernels.json").read_text())


@pytest.fixture(scope="module")
def compiler():
    path = ROOT / "runtime" / "native" / "cuda" / "compile.py"
    spec = importlib.util.spec_from_file_location("compile_kernels", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shipped_kernels_are_of_this_source(compiler):
    assert compiler.source_sha256() == FACTS["source_sha256"], f"run {compiler.__file__}"


def test_no_kernel_spills_registers(compiler):
    assert set(FACTS["resources"]) == set(compiler.MACHINES)
    for kernels in FACTS["resources"].values():
        assert len(kernels) == 18
        assert {kernel["spilled_bytes"] for kernel in kernels.values()} == {0}


@pytest.mark.parametrize("target", ["compute_80", "compute_90"])
def test_the_portable_code_runs_on_later_gpus(target):
    text = (cuda.kernels() / f"{target}.ptx").read_text().rstrip("\0")
    assert re.search(r"^\.target (\w+)$", text, re.M)[1] == target.replace("compute", "sm")
    assert text.count(".visible .entry") == 18


def test_the_products_run_on_tensor_cores():
    text = (cuda.kernels() / "compute_80.ptx").read_text()
    for shape in (
        "m16n8k16.row.col.f32.bf16",
        "m16n8k16.row.col.f32.f16",
        "m16n8k8.row.col.f32.tf32",
    ):
        assert f"mma.sync.aligned.{shape}" in text


def test_the_source_compiles_to_what_is_shipped(compiler):
    try:
        version = metadata.version(compiler.PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{compiler.PACKAGE} is not installed")
    if FACTS["compiler"] != f"NVRTC {version}":
        pytest.skip(f"another version than {FACTS['compiler']}")
    code, _ = compiler.compile_for("compute_80")
    assert code == (cuda.kernels() / "compute_80.ptx").read_bytes()
