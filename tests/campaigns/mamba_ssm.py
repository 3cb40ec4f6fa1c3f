"""mamba_ssm's own kernels against our scan: python tests/campaigns/mamba_ssm.py SOURCE

SOURCE is the unpacked source of mamba-ssm. Its Triton kernels run forward and backward in Triton's
interpreter on the CPU, called as the network's operator calls them. The code that chooses their
configuration by timing needs a GPU, so it is replaced. Writes results/mamba_ssm.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported

import torch
import triton
from torch import Tensor
from triton.runtime import interpreter

from bsmamba2_network import mamba_kernels
from bsmamba2_network.scan import scan

RESULTS = Path(__file__).parent / "results"
NAMES = (
    "zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A_log", "D", "norm_weight", "conv_state",
    "ssm_state",
)  # fmt: skip
CALLS = ((70, False, 2), (130, True, 2), (40, False, 1))
"""Lengths, whether the scan is backward, and the number of initial states for the 2 sequences."""
MIN_SNR_DB = 90.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="The folder that holds mamba_ssm.")
    source = parser.parse_args().source
    version = re.search(r'__version__ = "(.+)"', (source / "mamba_ssm/__init__.py").read_text())
    assert version
    allow_without_gpu(source)
    rows = [row(*call) for call in CALLS]
    page = (
        "# mamba_ssm's kernels against our scan\n\n"
        f"| length | direction | outputs | gradients |\n|---|---|---|---|\n{chr(10).join(rows)}\n\n"
        "The lowest SNR of the outputs, and of the gradients (with the tensor that has it); "
        f"float32; mamba_ssm {version[1]} with its Triton kernels in the interpreter of Triton "
        f"{triton.__version__}, and PyTorch's convolution; {datetime.date.today()}; "
        "`python tests/campaigns/mamba_ssm.py SOURCE`.\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "mamba_ssm.md").write_text(page)
    print(page)


def allow_without_gpu(source: Path) -> None:
    """Patches Triton and PyTorch so that mamba_ssm's Triton modules can be imported and run."""
    triton.autotune = SmallestConfig
    cuda: Any = torch.cuda
    cuda.device = lambda index: contextlib.nullcontext()
    cuda.get_device_properties = lambda device: types.SimpleNamespace(multi_processor_count=4)
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.utils"):
        package = types.ModuleType(name)  # skips its __init__
        package.__path__ = [str(source / name.replace(".", "/"))]
        sys.modules[name] = package
    patch = interpreter._patch_lang_tensor

    def patch_with_numbers(tensor: Any, *rest: Any) -> Any:
        """NumPy 2.4 no longer converts an array of one element to a number."""
        result = patch(tensor, *rest)
        tensor.__index__ = lambda self: int(self.handle.data.flat[0])
        tensor.__bool__ = lambda self: bool(self.handle.data.flat[0])
        return result

    interpreter._patch_lang_tensor = patch_with_numbers


class SmallestConfig:
    """Replaces ``triton.autotune``: uses the last configuration, the smallest, without timing."""

    def __init__(self, configs: list[Any], key: list[str], **_: Any) -> None:
        self.configs, self.best_config = configs, configs[-1]

    def __call__(self, kernel: Any) -> SmallestConfig:
        self.kernel = kernel
        return self

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        config = self.best_config

        def launch(*arguments: Any, **named: Any) -> None:
            named = config.kwargs | named
            if config.pre_hook:
                config.pre_hook(dict(zip(self.kernel.arg_names, arguments, strict=False)) | named)
            size = (lambda meta: grid(meta | config.kwargs)) if callable(grid) else grid
            self.kernel[size](*arguments, **named)

        return launch


def row(length: int, reverse: bool, initial_states: int) -> str:
    """Compares one call forward and backward and returns its row of the table."""
    generator = torch.Generator().manual_seed(length)
    shapes = [
        (2, length, 82), (48, 1, 4), (48,), (2,), (2,), (2,), (32,), (initial_states, 48, 3),
        (initial_states, 2, 16, 8),
    ]  # fmt: skip
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]
    expected, our_gradients = run(scan, inputs, reverse)
    got, their_gradients = run(mamba_kernels.scan, inputs, reverse)
    outputs = min(map(snr_db, expected, got))
    gradients = {
        name: snr_db(ours, theirs)
        for name, ours, theirs in zip(NAMES, our_gradients, their_gradients, strict=True)
    }
    lowest = min(gradients, key=gradients.__getitem__)
    assert min(outputs, gradients[lowest]) >= MIN_SNR_DB, gradients
    direction = "backwards" if reverse else "forwards"
    return f"| {length} | {direction} | {outputs:.0f} dB | {gradients[lowest]:.0f} dB ({lowest}) |"


def run(
    body: Callable[..., tuple[Tensor, ...]], values: list[Tensor], reverse: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the outputs, and the gradients of a random weighted sum of the outputs."""
    inputs = [value.clone().requires_grad_() for value in values]
    outputs = body(*inputs, 16, 8, reverse, 1e-5)
    generator = torch.Generator().manual_seed(1)
    weighted = [(y * torch.randn(y.shape, generator=generator)).sum() for y in outputs]
    torch.stack(weighted).sum().backward()
    gradients = [value.grad for value in inputs if value.grad is not None]
    return [y.detach() for y in outputs], gradients


def snr_db(expected: Tensor, got: Tensor) -> float:
    error = (expected.double() - got.double()).square().sum().clamp_min(1e-30)
    return float(10 * torch.log10(expected.double().square().sum() / error))


if __name__ == "__main__":
    main()
