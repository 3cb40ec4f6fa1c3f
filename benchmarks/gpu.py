"""Everything that a GPU is wanted for, in one run: first the numbers, then the times.

    python benchmarks/gpu.py [--library PATH] [--minutes 8] [--json gpu.json]

Needs torch and NVIDIA's driver; from a checkout without an installed bsmamba2:

    cmake -S . -B build && cmake --build build --parallel
    PYTHONPATH=runtime:network python benchmarks/gpu.py \\
        --library build/runtime/native/libbsmamba2_ort.so

No network is used. A row whose package is missing says so, as does one that no time was left for.
Weights and signals are random. Shares are of what the chip was measured to do: copies of large
memory, and products of large matrices in bfloat16. Every time is the median of runs between events
on the GPU, after a warm-up; inputs are larger than its caches. The exit status is 1 where a number
is wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

try:
    import bsmamba2  # noqa: F401
except ModuleNotFoundError:
    # What songs are read and written with is not installed here, nor needed: its parts alone.
    for _name in [name for name in sys.modules if name.startswith("bsmamba2")]:
        del sys.modules[_name]
    _spec = importlib.util.find_spec("bsmamba2")
    if _spec is None:
        raise
    sys.modules["bsmamba2"] = importlib.util.module_from_spec(_spec)

from gpu_chip import Clock, Rows, ceilings, failed
from gpu_network import (
    check_network,
    tensorrt_rows,
    time_network,
    time_onnxruntime,
    time_plain_network,
    time_song,
)
from gpu_scans import Kernel, check_scan, time_scans

from bsmamba2 import cuda, kernel
from bsmamba2_network import BSMamba2
from bsmamba2_network.scan import mamba2_scan


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def show(title: str, rows: Rows) -> Rows:
    """Prints rows as a table, at once."""
    print(f"\n## {title}", flush=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([shown(row.get(key, "")) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path, default=kernel.library())
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--json", type=Path, help="Where to write all figures.")
    parser.add_argument("--numbers-only", action="store_true", help="Check, and time nothing.")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(2, "benchmarks/gpu.py needs an NVIDIA GPU that PyTorch can use\n")
    if asked.library is None:
        parser.error("the native library is not installed: --library names one built elsewhere")
    clock = Clock(asked.minutes)
    torch.backends.cuda.matmul.allow_tf32 = False
    ours = Kernel(cuda.load(asked.library))
    mamba2_scan.register_kernel("cuda")(ours)
    card = torch.cuda.get_device_properties(0)
    found: dict[str, Any] = {
        "gpu": card.name, "compute": [card.major, card.minor], "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    print(f"{card.name}, compute {card.major}.{card.minor}, torch {torch.__version__}", flush=True)
    net = BSMamba2.untrained("paper").eval().cuda()

    def section(title: str, make: Callable[[], Rows], seconds: float = 0) -> None:
        """A failure of one part must not cost the others their time."""
        if clock.left() < seconds:
            found[title] = show(title, [{"what": title, "note": "no time left"}])
            return
        try:
            found[title] = show(title, make())
        except Exception as error:
            found[title] = show(title, [{"what": title, "note": failed(error)}])
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1))

    section("numbers of the scan", lambda: check_scan(ours))
    ours.states = False
    section("numbers of the network", lambda: check_network(net, ours))
    numbers = [row for title in found if title.startswith("numbers") for row in found[title]]
    wrong = not all(row.get("ok") for row in numbers)
    if asked.numbers_only:
        sys.exit(wrong)
    chip = ceilings()
    found["ceilings"] = chip
    print(f"\ncopy {chip['copy bytes/s'] / 1e12:.2f} TB/s, bf16 product "
          f"{chip['bf16 operations/s'] / 1e12:.0f} TFLOP/s")  # fmt: skip
    section("song", lambda: time_song(net), 60)
    section("network", lambda: time_network(net, clock), 60)
    section("network, plain scan", lambda: time_plain_network(net, ours), 45)
    section("scan", lambda: time_scans(ours, chip, clock), 45)
    folder = (asked.json or Path("gpu.json")).parent
    section("ONNX Runtime", lambda: time_onnxruntime(net, asked.library, folder), 60)
    section("TensorRT", tensorrt_rows)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
