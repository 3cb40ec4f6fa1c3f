"""Compiles the CUDA kernels ahead of time with NVRTC, for each architecture listed below.

``python runtime/native/cuda/compile.py`` writes the kernels into the runtime (``cuda_kernels``),
and ``kernels.json`` with the hash of their source and the registers and spills that the assembler
reports. It needs the package ``nvidia-cuda-nvrtc-cu12`` and no GPU. The output is committed, so
that installing bsmamba2 needs no CUDA compiler. NVRTC of CUDA 12 is used because older drivers do
not load the output of newer versions.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import re
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
OUTPUT = HERE.parents[1] / "bsmamba2" / "devices" / "cuda_kernels"
SOURCES = ("mamba2_scan.cu", "call.h", "device.h", "product.h", "residual_norm.h", "sequence.h")
MACHINES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_120")
"""Targets of machine code. It runs on these GPUs and on later ones of the same generation."""
VIRTUAL = "compute_90"
"""The target of the PTX, which the driver compiles for GPUs of later generations.

All GPUs of generations 8 and 9 have machine code, so PTX for ``compute_80`` would support no
additional GPU. Compiled for ``compute_80``, the PTX differs in ``.target sm_80`` and, in the eight
``advance`` kernels, ``.minnctapersm 2`` instead of 3 (see ``BSMAMBA2_RESIDENT`` in ``device.h``),
which would let fewer blocks run at a time on a Blackwell server GPU.
"""
PACKAGE = "nvidia-cuda-nvrtc-cu12"


def source_sha256() -> str:
    """Returns the SHA-256 of the files that the kernels are compiled from."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


def compile_for(target: str) -> tuple[bytes, dict[str, dict[str, int]]]:
    """Returns the kernels for one target, and the assembler's report on each (empty for PTX).

    Raises:
        RuntimeError: the source does not compile; the message contains the compiler's log.
    """
    nvrtc = _library()
    program = ctypes.c_void_p()
    kernels, *headers = SOURCES
    texts = [(HERE / name).read_bytes() for name in headers]
    strings = ctypes.c_char_p * len(headers)
    nvrtc.nvrtcCreateProgram(
        ctypes.byref(program),
        (HERE / kernels).read_bytes(),
        kernels.encode(),
        len(headers),
        strings(*texts),
        strings(*(name.encode() for name in headers)),
    )
    options = [
        f"--gpu-architecture={target}",
        "--std=c++17",
        "--device-as-default-execution-space",
        "--ptxas-options=-v",
    ]
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
    log = _read(nvrtc, program, "ProgramLog").decode().rstrip("\0")
    if failed:
        raise RuntimeError(f"{kernels} does not compile for {target}:\n{log}")
    code = _read(nvrtc, program, "CUBIN" if target.startswith("sm_") else "PTX")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return code, _resources(log)


def _library() -> ctypes.CDLL:
    files = metadata.files(PACKAGE) or []
    name = next(file for file in files if file.name == "libnvrtc.so.12")
    return ctypes.CDLL(str(name.locate()))


def _read(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, output: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{output}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{output}")(program, text)
    return text.raw


def _resources(log: str) -> dict[str, dict[str, int]]:
    resources = {}
    for name, report in re.findall(r"Compiling entry function '(\w+)'(.*?Used \d+)", log, re.S):
        numbers = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
        registers = re.search(r"Used (\d+)", report)
        assert numbers, report
        assert registers, report
        stores, loads = map(int, numbers.groups())
        resources[name] = {"registers": int(registers[1]), "spilled_bytes": stores + loads}
    return dict(sorted(resources.items()))


def main() -> None:
    """Compiles the kernels for every target and writes ``kernels.json``."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    OUTPUT.mkdir(exist_ok=True)
    reports = {}
    for target in (*MACHINES, VIRTUAL):
        suffix = "cubin" if target in MACHINES else "ptx"
        code, reports[target] = compile_for(target)
        (OUTPUT / f"{target}.{suffix}").write_bytes(code)
        spilled = sum(kernel["spilled_bytes"] for kernel in reports[target].values())
        print(f"{target}: {len(code)} bytes, {spilled} spilled")
    facts = {
        "source_sha256": source_sha256(),
        "compiler": f"NVRTC {metadata.version(PACKAGE)}",
        "resources": {target: report for target, report in reports.items() if report},
    }
    (OUTPUT / "kernels.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
