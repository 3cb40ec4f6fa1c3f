"""The native library: where it is found, and which instruction set its kernels use."""

from __future__ import annotations

from pathlib import Path

import pytest

from bsmamba2.devices import kernel

needs_kernel = pytest.mark.skipif(kernel.library() is None, reason="the kernel is not installed")


def test_the_kernel_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_KERNEL", "off")
    assert (kernel.library(), kernel.instruction_set()) == (None, None)


@needs_kernel
def test_the_library_is_a_file_of_this_package() -> None:
    path = kernel.library()
    assert path is not None
    assert path.is_file()
    assert (path.parent.name, path.parents[1].name) == ("native", "bsmamba2")


@needs_kernel
def test_the_installed_kernel_names_its_instruction_set() -> None:
    assert kernel.instruction_set() in ("avx512", "avx2", "portable")


def test_a_library_that_cannot_be_loaded_has_no_instruction_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kernel.so").write_text("no library")
    monkeypatch.setattr(kernel, "library", lambda: tmp_path / "kernel.so")
    assert kernel.instruction_set() is None
