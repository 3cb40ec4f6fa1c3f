"""The products of each speed, and the speeds that a device has."""

from __future__ import annotations

import pytest

from bsmamba2 import DeviceError
from bsmamba2.devices import kernel, products
from bsmamba2.devices.device import CPU, Device


def test_a_speed_is_exact_or_fast() -> None:
    for speed in products.SPEEDS:
        products.require_speed(speed, CPU)
    with pytest.raises(DeviceError, match="speed must be exact or fast; got 'Fast'"):
        products.require_speed("Fast", CPU)


@pytest.mark.parametrize("device", [Device("cuda"), Device("tensorrt", 1)])
def test_on_a_gpu_the_precision_of_the_model_determines_the_products(device: Device) -> None:
    products.require_speed("exact", device)
    with pytest.raises(DeviceError, match=rf"exact on {device}.*export .* precision='bf16'"):
        products.require_speed("fast", device)


def test_without_the_kernel_every_product_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_KERNEL", "off")
    assert [products.products(speed) for speed in products.SPEEDS] == ["float32", "float32"]


@pytest.mark.skipif(kernel.library() is None, reason="the kernel is not installed")
def test_the_installed_kernel_names_the_products_of_each_speed() -> None:
    exact, fast = (products.products(speed) for speed in products.SPEEDS)
    assert exact in ("float32", "bf16x3 (amx)")
    assert fast.partition(" ")[0] in ("float32", "bf16", "int8")
