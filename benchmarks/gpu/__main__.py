"""Everything to check and time on an NVIDIA GPU, in one run: first the numbers, then the times.

    python -m benchmarks.gpu [--library PATH] [--graphs FOLDER] [--engine PATH]... [--json gpu.json]

Needs torch and NVIDIA's driver. From a checkout where bsmamba2 is not installed:

    cmake -S . -B build && cmake --build build --parallel
    PYTHONPATH=runtime:network python -m benchmarks.gpu \\
        --library build/runtime/native/libbsmamba2_ort.so

ONNX Runtime in bf16 and with its own scan needs graphs, which ``python -m benchmarks.gpu.graphs
FOLDER`` writes on any machine. TensorRT needs the package onnx here, or engines built elsewhere.

The benchmark needs no internet. If a row's package is missing, or no time is left for it, it has a
note instead of figures. Weights and signals are random.

Before an output is timed, it is compared with the plain scan in float32; the exit status is 1 if a
number is wrong. A time is the median of runs after a warm-up, measured between events on the GPU;
for ONNX Runtime and TensorRT it is from host memory to host memory. Shares are relative to ceilings
measured on this chip: copies of large memory, and products of large matrices in bfloat16. The
network's share counts only its products with weights.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.arguments import argument_parser
from benchmarks.gpu.chip import Clock, exact_float32
from benchmarks.gpu.engines import Engines
from benchmarks.gpu.report import Report, measure
from benchmarks.gpu.scans import Kernel
from bsmamba2.devices import cuda, kernel
from bsmamba2_network import BSMamba2
from bsmamba2_network.scan import mamba2_scan


def main() -> None:
    parser = argument_parser("gpu", __doc__)
    parser.add_argument(
        "--library", type=Path, default=kernel.library(), help="The native library. Default: the "
        "installed one.",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=8, help="Time budget. Default: 8.")
    parser.add_argument("--json", type=Path, help="The file to write all figures to.")
    parser.add_argument("--numbers-only", action="store_true", help="Check numbers without timing.")
    parser.add_argument("--graphs", type=Path, help="The folder that benchmarks.gpu.graphs wrote.")
    parser.add_argument(
        "--engine", type=Path, action="append", default=[], help="A TensorRT engine that you "
        "trust, with its JSON next to it; may be repeated.",
    )  # fmt: skip
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(2, "python -m benchmarks.gpu needs an NVIDIA GPU that PyTorch can use\n")
    if arguments.library is None:
        parser.error("the native library is not installed: give the path of one with --library")
    for path in (arguments.graphs, *arguments.engine):
        if path and not path.exists():
            parser.error(f"{path} does not exist")
    clock = Clock(arguments.minutes)
    exact_float32()
    ours = Kernel(cuda.load(arguments.library))
    mamba2_scan.register_kernel("cuda")(ours)
    card = torch.cuda.get_device_properties(0)
    about = {
        "gpu": card.name, "compute": f"{card.major}.{card.minor}", "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    report = Report(clock, arguments.json, about=about)
    net = BSMamba2.untrained("paper").eval().cuda()
    with tempfile.TemporaryDirectory() as scratch:
        engines = Engines("paper", Path(scratch), arguments.graphs, arguments.library.absolute())
        measure(report, clock, net, ours, engines, arguments.engine, arguments.numbers_only)
    sys.exit(report.has_wrong_numbers())


if __name__ == "__main__":
    main()
