"""Compiles the CUDA kernels ahead of time, for every architecture that is named, with NVRTC.

``python runtime/native/cuda/compile.py`` writes them into the runtime (``cuda_kernels``), with
``kernels.json``: of which source they are, and the registers and spills that the assembler
reports. It needs the package ``nvidia-cuda-nvrtc-cu12`` and no GPU; what it writes is kept in the
repository, since who installs bsmamba2 has neither. NVRTC of CUDA 12 is used for the sake of older
drivers, which do not load what a newer one writes.
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
SOURCES = ("mamba2_scan.cu", "call.h", "device.h", "product.h", "sequence.h")
MACHINES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_120")
"""Machine code, for these GPUs and the later ones of the same generation."""
VIRTUAL = ("compute_80", "compute_90")
"""PTX, which the driver compiles for every generation from the named one on."""
PACKAGE = "nvidia-cuda-nvrtc-cu12"


def source_sha256() -> str:
    """Of all that the kernels are compiled from."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


def compile_for(target: str) -> tuple[bytes, dict[str, dict[str, int]]]:
    """The kernels for one target, and what the assembler reports of each; nothing for PTX.

    Raises:
        RuntimeError: the source does not compile; the message is the compiler's.
    """
    nvrtc = _library()
    program = ctypes.c_void_p()
    kernels, *headers = SOURCES
    texts = [(HERE / name).read_bytes() for name in headers]
    listed = ctypes.c_char_p * len(headers)
    nvrtc.nvrtcCreateProgram(
        ctypes.byref(program),
        (HERE / kernels).read_bytes(),
        kernels.encode(),
        len(headers),
        listed(*texts),
        listed(*(name.encode() for name in headers)),
    )
    options = [
        f"--gpu-architecture={target}",
        "--std=c++17",
        "--device-as-default-execution-space",
        "--ptxas-options=-v",
    ]
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), given)
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


def _read(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, text)
    return text.raw


def _resources(log: str) -> dict[str, dict[str, int]]:
    found = {}
    for name, report in re.findall(r"Compiling entry function '(\w+)'(.*?Used \d+)", log, re.S):
        numbers = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
        registers = re.search(r"Used (\d+)", report)
        assert numbers, report
        assert registers, report
        stores, loads = map(int, numbers.groups())
        found[name] = {"registers": int(registers[1]), "spilled_bytes": stores + loads}
    return dict(sorted(found.items()))


def main() -> None:
    """Compiles everything."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    OUTPUT.mkdir(exist_ok=True)
    reports = {}
    for target in (*MACHINES, *VIRTUAL):
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
