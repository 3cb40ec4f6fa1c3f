"""Memory of one Separator: loaded for chunks, then for a stream too.

    python -m benchmarks.sharing

Both sessions use the same weights, so the stream adds little. The resident memory is read after
free memory was returned to the system.
"""

from __future__ import annotations

import ctypes
import gc
import tempfile
from pathlib import Path

from benchmarks.machine import conditions
from benchmarks.weights import random_model
from bsmamba2 import Separator

MIB = 1 << 20


def resident_mib() -> float:
    """Returns the resident memory of this process, without memory that is free for reuse."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = random_model("paper", Path(folder))
        weights = model.stat().st_size / MIB
        start = resident_mib()
        separator = Separator(model, "cpu")
        chunks = resident_mib()
        stream = separator.stream(44100, lookahead_ms=500)
        both = resident_mib()
        assert len(stream.flush()["vocals"]) == 2  # keeps the stream loaded up to here
    print(f"weights            {weights:6.0f} MiB")
    print(f"loaded for chunks  {chunks - start:6.0f} MiB")
    print(f"a stream adds      {both - chunks:6.0f} MiB")
    print(conditions("all threads", "onnxruntime"))


if __name__ == "__main__":
    main()
