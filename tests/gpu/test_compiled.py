"""The shipped kernels are compiled from this source, for all listed GPUs, without spills."""

from __future__ import annotations

import importlib.util
import json
import re
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from bsmamba2.devices import cuda

ROOT = Path(__file__).parents[2]
FACTS = json.loads((cuda.kernels() / "kernels.json").read_text())


@pytest.fixture(scope="module")
def compiler() -> ModuleType:
    """The script that compiles the kernels."""
    path = ROOT / "runtime" / "native" / "cuda" / "compile.py"
    spec = importlib.util.spec_from_file_location("compile_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shipped_kernels_match_this_source(compiler: ModuleType) -> None:
    assert compiler.source_sha256() == FACTS["source_sha256"], f"run {compiler.__file__}"


def test_no_kernel_spills_registers_and_none_exceeds_its_share(compiler: ModuleType) -> None:
    assert set(FACTS["resources"]) == set(compiler.MACHINES)
    for kernels in FACTS["resources"].values():
        assert len(kernels) == 30
        assert not any(kernel["spilled_bytes"] for kernel in kernels.values())
        prepare = [k["registers"] for name, k in kernels.items() if name.startswith("prepare")]
        assert max(prepare) <= 128


def test_every_listed_target_is_shipped_and_no_other(compiler: ModuleType) -> None:
    shipped = {path.name for path in cuda.kernels().iterdir()} - {"kernels.json"}
    machine_code = {f"{target}.cubin" for target in compiler.MACHINES}
    assert shipped == {f"{compiler.VIRTUAL}.ptx"} | machine_code


def test_every_gpu_before_the_ptx_has_machine_code(compiler: ModuleType) -> None:
    """Machine code for X.0 runs on all of generation X, so only later generations need the PTX."""
    first = int(compiler.VIRTUAL.removeprefix("compute_"))
    assert {f"sm_{generation}" for generation in range(80, first + 1, 10)} <= set(compiler.MACHINES)


def test_the_ptx_has_all_kernels_for_its_target(compiler: ModuleType) -> None:
    text = ptx(compiler).rstrip("\0")
    target = re.search(r"^\.target (\w+)$", text, re.M)
    assert target is not None
    assert target[1] == compiler.VIRTUAL.replace("compute", "sm")
    assert text.count(".visible .entry") == 30


def ptx(compiler: ModuleType) -> str:
    return (cuda.kernels() / f"{compiler.VIRTUAL}.ptx").read_text()


def test_the_products_run_on_tensor_cores(compiler: ModuleType) -> None:
    text = ptx(compiler)
    for shape in (
        "m16n8k16.row.col.f32.bf16",
        "m16n8k16.row.col.f32.f16",
        "m16n8k8.row.col.f32.tf32",
    ):
        assert f"mma.sync.aligned.{shape}" in text


def test_compiling_the_source_gives_the_shipped_ptx(compiler: ModuleType) -> None:
    try:
        version = metadata.version(compiler.PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{compiler.PACKAGE} is not installed")
    if FACTS["compiler"] != f"NVRTC {version}":
        pytest.skip(f"the installed version is not {FACTS['compiler']}")
    code, _ = compiler.compile_for(compiler.VIRTUAL)
    assert code.decode() == ptx(compiler)
