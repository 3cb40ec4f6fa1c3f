"""A call of the CUDA kernels with its tensors in host memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bsmamba2.devices.cuda import Call
from kernel.scans import Array, Scan, random_scan, recurrence

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PARAMETERS = (
    "conv_weight", "conv_bias", "dt_bias", "A_log", "D", "norm_weight", "conv_state", "ssm_state",
)  # fmt: skip


class Memory:
    """The tensors of a call. Its outputs are filled with NaN before the call."""

    def __init__(self, scan: Scan, kind: str, states: bool = True) -> None:
        self.tokens = torch.from_numpy(scan["zxbcdt"]).to(TYPES[kind])
        batch, length, _ = self.tokens.shape
        shape = (batch, length, len(scan["norm_weight"]))
        self.y = torch.full(shape, torch.nan, dtype=self.tokens.dtype)
        self.states = [
            np.full((batch, *scan[name].shape[1:]), np.nan, np.float32)
            for name in ("conv_state", "ssm_state")
        ]
        self.scan = scan
        dt_columns = self.tokens.shape[2] - 2 * (shape[2] + scan.state_size)
        self.call = Call(
            batch, length, len(scan["A_log"]), scan["conv_state"].shape[0],
            scan["ssm_state"].shape[0], scan.reverse, dt_columns, scan.epsilon,
            self.tokens.data_ptr(),
            *(scan[name].ctypes.data for name in PARAMETERS), self.y.data_ptr(),
            *((state.ctypes.data for state in self.states) if states else (None, None)),
        )  # fmt: skip

    def outputs(self) -> list[Array]:
        """y and both states, after the call."""
        return [self.y.float().numpy(), *self.states]

    def expected(self) -> tuple[Array, Array, Array]:
        """Computes the recurrence of the tokens after their rounding to this type."""
        return recurrence(self.scan.with_tensors(zxbcdt=self.tokens.float().numpy()))


def kernel_scan(**sizes: Any) -> Scan:
    """Returns a random scan of sizes that have CUDA kernels."""
    return random_scan(**{"head_dim": 64, "state_size": 64, "heads": 1, "batch": 1} | sizes)
