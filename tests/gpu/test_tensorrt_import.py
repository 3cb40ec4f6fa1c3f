"""The import of TensorRT, and the commands that install it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from bsmamba2.engines.tensorrt_import import import_tensorrt
from bsmamba2.errors import MissingExtra
from bsmamba2.installation import install_command


@pytest.mark.parametrize(
    ("backend", "modules", "command"),
    [
        ("tensorrt", ["tensorrt"], install_command("tensorrt")),
        (
            "tensorrt-rtx",
            ["tensorrt_rtx", "tensorrt_rtx_bindings"],
            install_command("tensorrt-rtx"),
        ),
    ],
)
def test_a_missing_package_is_an_error_with_its_command(
    monkeypatch: pytest.MonkeyPatch, backend: str, modules: list[str], command: str
) -> None:
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=f"{backend} cannot be loaded") as caught:
        import_tensorrt(backend)
    assert str(caught.value).endswith(f"; run: {command}")


def test_the_bindings_alone_are_enough_for_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = ModuleType("tensorrt_rtx_bindings")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", bindings)
    assert import_tensorrt("tensorrt-rtx") is bindings
