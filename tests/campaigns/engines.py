"""Real TensorRT-RTX engines without a GPU: python tests/campaigns/engines.py [--only medium]

Builds an engine for each size and GPU below from a checkpoint with random weights, by `bsmamba2
build-engine` in a separate process, and reads it back. Writes results/engines.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bsmamba2.formats.engine_file import read_engine
from bsmamba2_network import BSMamba2

RESULTS = Path(__file__).parent / "results"
ENGINES = (
    *(("medium", gpu) for gpu in ("sm80", "sm86", "sm89", "sm120")),
    *(("paper", gpu) for gpu in ("sm89", "sm120")),
)
"""Sizes and GPUs, smaller sizes first, because the reported memory is the peak so far."""
HEAD = "| size | GPU | chunk | build time | peak memory | file |\n|---|---|---|---|---|---|\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("medium", "paper"), help="The size to build.")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size, gpu in ENGINES:
            if arguments.only in (None, size):
                print(f"{size} for {gpu}", flush=True)
                rows.append(build(Path(folder), size, gpu))
    only = f" --only {arguments.only}" if arguments.only else ""
    version = importlib.metadata.version("tensorrt_rtx_cu13_libs")
    page = (
        f"# TensorRT-RTX engines, built without a GPU\n\n{HEAD}" + "\n".join(rows) + "\n\n"
        "Random weights, float32, scans by TensorRT's operators. The engines were built and read "
        "back but not run, which needs the card. The build times are rough: other programs ran at "
        f"the same time. TensorRT-RTX {version}; {datetime.date.today()}; "
        f"`python tests/campaigns/engines.py{only}`.\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "engines.md").write_text(page)
    print(page)


def build(folder: Path, size: str, gpu: str) -> str:
    """Builds one engine and returns its row of the table."""
    checkpoint, engine = folder / f"{size}.safetensors", folder / f"{size}.engine"
    BSMamba2.untrained(size).save(checkpoint)
    command = ["-m", "bsmamba2", "build-engine", checkpoint, "-o", engine, "--gpu", gpu]
    start = time.perf_counter()
    subprocess.run([sys.executable, *map(str, command), "--overwrite"], check=True)
    elapsed_s = time.perf_counter() - start
    file = read_engine(engine)
    file.require_trust()
    assert file.key.gpus == (gpu,)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    seconds = file.manifest.chunk / file.manifest.sample_rate
    megabytes = engine.stat().st_size / 1e6
    sizes = f"{peak:.1f} GB | {megabytes:.0f} MB"
    return f"| {size} | {gpu} | {seconds:.0f} s | {elapsed_s:.0f} s | {sizes} |"


if __name__ == "__main__":
    main()
