"""Everything to check and time on an NVIDIA GPU: ``python -m benchmarks.gpu``."""

from benchmarks.gpu.packages import skip_init

try:
    import bsmamba2  # noqa: F401 - only whether it can be imported
except ModuleNotFoundError:
    # The packages that read and write songs are missing, and most rows do not need them.
    skip_init("bsmamba2")
