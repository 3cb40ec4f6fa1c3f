"""The products that the kernels use on a CPU: narrower than float32 where the processor has them.

    speed     AMX       AVX512-BF16    VNNI       any other processor
    exact     bf16x3    float32        float32    float32
    fast      bf16      bf16           int8       float32

``exact`` gives float32's result to about 100 dB; ``fast`` costs quality. The measurements are in
benchmarks/results/products.md. The projections of the mixers use these products; everything else is
float32 at both speeds.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from bsmamba2.devices.kernel import library
from bsmamba2.devices.libraries import open_library
from bsmamba2.errors import DeviceError

if TYPE_CHECKING:
    from bsmamba2.devices.device import Device

SPEEDS = ("exact", "fast")
DEFAULT_SPEED = "exact"

SETTING = "bsmamba2.speed"
"""The session option that tells the kernels the speed."""


def require_speed(speed: str, device: Device) -> None:
    """Checks a speed.

    Raises:
        DeviceError: there is no such speed, or the device has only one.
    """
    if speed not in SPEEDS:
        raise DeviceError(f"speed must be {' or '.join(SPEEDS)}; got {speed!r}")
    if speed != DEFAULT_SPEED and device.kind != "cpu":
        raise DeviceError(
            f"speed must be {DEFAULT_SPEED} on {device}, where the model's precision determines "
            f"the products; got {speed!r}: export the model with precision='bf16' or "
            "precision='fp16'"
        )


def products(speed: str) -> str:
    """Returns the products that a speed uses here, e.g. ``bf16x3 (amx)`` or ``float32``.

    If the processor has an instruction set whose results are wrong, the text says so after a
    semicolon.
    """
    path = library()
    native = open_library(str(path)) if path else None
    if native is None or not hasattr(native, "bsmamba2_products"):
        return "float32"
    native.bsmamba2_products.restype = ctypes.c_char_p
    return str(native.bsmamba2_products(speed.encode("ascii")).decode("ascii"))
