"""Builds the stand-ins for NVIDIA's libraries that ONNX Runtime's CUDA provider needs.

Functions that no source here defines become stubs that succeed; they are logged by name. Each
symbol gets the version that the provider asks for.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

SOURCES = Path(__file__).parent
LIBRARIES = {
    "libcudart.so.13": "cudart.cpp",
    "libcublas.so.13": "cublas.cpp",
    "libcublasLt.so.13": "cublaslt.cpp",
    "libcurand.so.10": None,
    "libcudnn.so.9": "cudnn.cpp",
    "libcuda.so.1": "driver.cpp",
}
"""The source of each library; None if it consists of stubs."""


def build(provider: Path, headers: Path, folder: Path) -> Path:
    """Compiles every stand-in into a folder and returns it.

    Args:
        provider: ``libonnxruntime_providers_cuda.so``.
        headers: the folder with ``cuda_runtime_api.h``.
        folder: where the libraries are written; created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed = _needed(provider)
    log = folder / "libcudart.so.13"  # holds the log, so it is first and the others link it
    for library, source in LIBRARIES.items():
        links = [] if library == log.name else [str(log)]
        _compile(folder / library, source, needed[library], headers, links)
    (folder / "libnvidia-ml.so.1").symlink_to("libcuda.so.1")
    return folder


def _needed(provider: Path) -> dict[str, list[str]]:
    """Returns the functions that the provider needs, by the library that their version names."""
    printed = _run("nm", "-D", "--undefined-only", str(provider))
    needed: dict[str, list[str]] = defaultdict(list)
    for line in printed.splitlines():
        name, _, version = line.split()[-1].partition("@")
        needed[version.lstrip("@")].append(name)
    # These it looks up by name when it first needs one.
    cudnn = set(re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", provider.read_bytes()))
    needed["libcudnn.so.9"] = sorted(name.decode() for name in cudnn)
    return needed


def _compile(
    output: Path, source: str | None, names: list[str], headers: Path, links: list[str]
) -> None:
    text = (SOURCES / source).read_text(encoding="utf-8") if source else ""
    missing = [name for name in names if f" {name}(" not in text]
    stubs = output.with_suffix(".stubs.cpp")
    lines = [f'API int {name}() {{ stand_in_log("call\\t{name}"); return 0; }}' for name in missing]
    stubs.write_text("\n".join(['#include "log.h"', *lines, ""]), encoding="utf-8")
    versions = output.with_suffix(".map")
    versions.write_text(f"{output.name} {{ global: *; }};\n", encoding="utf-8")
    sources = [str(stubs), *([str(SOURCES / source)] if source else [])]
    options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{SOURCES}"]
    options += [f"-I{headers}", f"-Wl,--version-script={versions}", f"-Wl,-soname={output.name}"]
    _run("c++", *options, "-o", str(output), *sources, *links)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
