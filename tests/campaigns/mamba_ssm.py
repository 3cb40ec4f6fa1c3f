"""mamba_ssm's own kernels against our scan: python tests/campaigns/mamba_ssm.py SOURCE

SOURCE is the unpacked source of mamba-ssm. Its Triton kernels run in Triton's interpreter on the
CPU, forwards and backwards, under the network's operator; what takes a GPU in the calls around them
(the choice of a configuration by timing) is stood in for. Writes results/mamba_ssm.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported

import torch
import triton
from triton.runtime import interpreter

from bsmamba2_network import mamba_kernels
from bsmamba2_network.scan import scan

RESULTS = Path(__file__).parent / "results"
NAMES = (
    "zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A_log", "D", "norm_weight", "conv_state",
    "ssm_state",
)  # fmt: skip
CALLS = ((70, False, 2), (130, True, 2), (40, False, 1))
"""Lengths, whether backwards, and how many sequences have a state of their own; of 2."""
LEAST_DB = 90.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="The folder that holds mamba_ssm.")
    source = parser.parse_args().source
    version = re.search(r'__version__ = "(.+)"', (source / "mamba_ssm/__init__.py").read_text())
    without_a_gpu(source)
    rows = [row(*call) for call in CALLS]
    page = (
        "# mamba_ssm's kernels against our scan\n\n"
        f"| length | direction | outputs | gradients |\n|---|---|---|---|\n{chr(10).join(rows)}\n\n"
        f"The least SNR of all outputs and of all gradients, float32. mamba_ssm {version[1]}, its "
        f"Triton kernels in the interpreter of Triton {triton.__version__}, the convolution by "
        f"PyTorch; {datetime.date.today()}; `python tests/campaigns/mamba_ssm.py SOURCE`.\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "mamba_ssm.md").write_text(page)
    print(page)


def without_a_gpu(source: Path) -> None:
    """Lets mamba_ssm's Triton modules be imported and run here."""
    triton.autotune = First
    torch.cuda.device = lambda index: contextlib.nullcontext()
    torch.cuda.get_device_properties = lambda device: types.SimpleNamespace(multi_processor_count=4)
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.utils"):
        package = types.ModuleType(name)  # without what its __init__ imports
        package.__path__ = [str(source / name.replace(".", "/"))]
        sys.modules[name] = package
    patch = interpreter._patch_lang_tensor

    def with_numbers(tensor: Any, *rest: Any) -> Any:
        """NumPy 2.4 makes no number of an array of one."""
        done = patch(tensor, *rest)
        tensor.__index__ = lambda self: int(self.handle.data.flat[0])
        tensor.__bool__ = lambda self: bool(self.handle.data.flat[0])
        return done

    interpreter._patch_lang_tensor = with_numbers


class First:
    """Stands for ``triton.autotune``: the last of the configurations, the smallest, untimed."""

    def __init__(self, configs: list[Any], key: list[str], **_: Any) -> None:
        self.configs, self.best_config = configs, configs[-1]

    def __call__(self, kernel: Any) -> First:
        self.kernel = kernel
        return self

    def __getitem__(self, grid: Any) -> Any:
        chosen = self.best_config

        def launch(*given: Any, **named: Any) -> None:
            named = chosen.kwargs | named
            if chosen.pre_hook:
                chosen.pre_hook(dict(zip(self.kernel.arg_names, given, strict=False)) | named)
            size = (lambda meta: grid(meta | chosen.kwargs)) if callable(grid) else grid
            self.kernel[size](*given, **named)

        return launch


def row(length: int, reverse: bool, kept: int) -> str:
    """One call both ways; a row of the table."""
    draw = torch.Generator().manual_seed(length)
    shapes = [
        (2, length, 82), (48, 1, 4), (48,), (2,), (2,), (2,), (32,), (kept, 48, 3), (kept, 2, 16, 8)
    ]  # fmt: skip
    given = [torch.randn(shape, generator=draw) for shape in shapes]
    (wanted, ours), (found, theirs) = (
        run(body, given, reverse) for body in (scan, mamba_kernels.scan)
    )
    outputs = min(map(snr_db, wanted, found))
    gradients = {name: snr_db(*pair) for name, *pair in zip(NAMES, ours, theirs, strict=True)}
    least = min(gradients, key=gradients.__getitem__)
    assert min(outputs, gradients[least]) >= LEAST_DB, gradients
    way = "backwards" if reverse else "forwards"
    return f"| {length} | {way} | {outputs:.0f} dB | {gradients[least]:.0f} dB ({least}) |"


def run(body: Any, given: list[torch.Tensor], reverse: bool) -> tuple[list[Any], list[Any]]:
    """Outputs and gradients, from a random weighting of all outputs."""
    inputs = [value.clone().requires_grad_() for value in given]
    outputs = body(*inputs, 16, 8, reverse, 1e-5)
    draw = torch.Generator().manual_seed(1)
    sum((y * torch.randn(y.shape, generator=draw)).sum() for y in outputs).backward()
    return [y.detach() for y in outputs], [value.grad for value in inputs]


def snr_db(wanted: torch.Tensor, found: torch.Tensor) -> float:
    error = (wanted.double() - found.double()).square().sum().clamp_min(1e-30)
    return float(10 * torch.log10(wanted.double().square().sum() / error))


if __name__ == "__main__":
    main()
