"""Everything to check and time on an NVIDIA GPU: ``python -m benchmarks.gpu``."""

from benchmarks.gpu.packages import skip_init

try:
    import bsmamba2  # noqa: F401 - tests whether it can be imported
except ModuleNotFoundError:
    # A package that reads or writes songs is missing; most rows do not need it.
    skip_init("bsmamba2")
