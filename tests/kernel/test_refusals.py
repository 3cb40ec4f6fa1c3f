"""Invalid inputs and attributes raise ONNX Runtime's errors, and never crash."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from .scans import INPUTS, REGISTER, Run, Scan, model, random_scan, session

SIZES = {"head_dim": 8, "state_size": 8}
Python = Callable[..., subprocess.CompletedProcess[str]]


def resize(name: str, *shape: int) -> Callable[[Scan], Scan]:
    return lambda scan: scan.with_tensors(**{name: np.zeros(shape, np.float32)})


INVALID = {
    "zxbcdt must have 3 dimensions; got 2": resize("zxbcdt", 70, 50),
    "zxbcdt must have 2 * heads * head_dim + 2 * state_size + heads = 50 columns; got 49": resize(
        "zxbcdt", 2, 5, 49
    ),
    "A_log must have 1 dimensions; got 0": resize("A_log"),
    "A_log must have at least one head": resize("A_log", 0),
    "conv_weight must have 2 to 4 taps; got 5": resize("conv_weight", 32, 1, 5),
    "conv_weight must have the shape (32, 1, 4); got (31, 1, 4)": resize("conv_weight", 31, 1, 4),
    "conv_bias must have the shape (32); got (33)": resize("conv_bias", 33),
    "dt_bias must have the shape (2)": resize("dt_bias", 1),
    "D must have the shape (2)": resize("D", 16),
    "norm_weight must have the shape (16)": resize("norm_weight", 1),
    "conv_state must have the shape (1 or 2, 32, 3); got (3, 32, 3)": resize(
        "conv_state", 3, 32, 3
    ),
    "ssm_state must have the shape (1 or 2, 2, 8, 8)": resize("ssm_state", 2, 2, 8, 9),
}  # fmt: skip


@pytest.mark.parametrize("message", INVALID)
def test_an_invalid_tensor_is_refused_by_name(run: Run, message: str) -> None:
    with pytest.raises(Exception, match=re.escape(f"mamba2_scan: {message}")):
        run(INVALID[message](random_scan()))


def test_tokens_must_be_float32_or_float16(library: Path) -> None:
    scan = random_scan()
    double = scan.with_tensors(zxbcdt=scan["zxbcdt"].astype(np.float64))
    loaded = session(library, model(SIZES, kind=TensorProto.DOUBLE))
    with pytest.raises(Exception, match="zxbcdt must be float32 or float16"):
        loaded.run(None, double.tensors)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"head_dim": 0, "state_size": 8}, "head_dim must be 1 to 65536; got 0"),
        ({"head_dim": 8, "state_size": -1}, "state_size must be 1 to 65536; got -1"),
        ({"state_size": 8}, "the attribute head_dim is missing"),
        ({"head_dim": 8.0, "state_size": 8}, "the attribute head_dim is missing or has the wrong"),
        (SIZES | {"reverse": 2}, "reverse must be 0 or 1; got 2"),
        (SIZES | {"reverse": 1.0}, "the attribute reverse is missing or has the wrong type"),
        (SIZES | {"epsilon": -1.0}, "epsilon must be 0 or more; got -1"),
        (SIZES | {"epsilon": float("nan")}, "epsilon must be 0 or more; got nan"),
    ],
)
def test_an_attribute_out_of_range_is_refused_when_the_model_loads(
    library: Path, attributes: dict[str, float], message: str
) -> None:
    with pytest.raises(Exception, match=f"mamba2_scan: {message}"):
        session(library, model(attributes))


def test_reverse_and_epsilon_are_optional(library: Path, run: Run) -> None:
    scan = random_scan()
    plain = session(library, model(SIZES)).run(None, scan.tensors)
    for got, expected in zip(plain, run(scan), strict=True):
        np.testing.assert_array_equal(got, expected)


class OldRuntime:
    """A mock of ONNX Runtime 1.16: the functions that a library calls before it registers.

    It has no API of version 17. ``messages`` are the messages of all statuses created.
    """

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        version = ctypes.create_string_buffer(b"1.16.3")
        function, pointer = ctypes.CFUNCTYPE, ctypes.c_void_p
        number, text = ctypes.c_uint32, ctypes.c_char_p
        self.calls = [
            function(pointer, ctypes.c_int, text)(self._create_status),
            function(pointer, number)(self._get_api),
            function(pointer)(lambda: ctypes.addressof(version)),
        ]
        places = [ctypes.cast(call, pointer) for call in self.calls]
        self.api = (pointer * 300)(places[0])
        self.base = (pointer * 2)(*places[1:])

    def _get_api(self, version: int) -> int:
        return ctypes.addressof(self.api) if version < 17 else 0

    def _create_status(self, code: int, message: bytes) -> int:
        self.messages.append(message)
        return 1  # a pointer that is not null


def test_an_older_onnx_runtime_is_refused_with_both_versions(library: Path) -> None:
    old = OldRuntime()
    assert ctypes.CDLL(str(library)).RegisterCustomOps(None, old.base)
    assert old.messages == [b"bsmamba2's kernels need ONNX Runtime 1.18 or newer; got 1.16.3."]


def test_an_unknown_instruction_set_is_refused_with_the_supported_ones(
    python: Python, library: Path
) -> None:
    done = python("-c", REGISTER.format(library), BSMAMBA2_ISA="mmx")
    assert done.returncode != 0
    assert "BSMAMBA2_ISA must be one of" in done.stderr
    assert "portable here; got mmx" in done.stderr


def test_sequences_without_tokens_take_no_time_or_memory(run: Run) -> None:
    scan = random_scan(states=1).with_tensors(zxbcdt=np.zeros((2**36, 0, 50), np.float32))
    assert run(scan, outputs=("y",))[0].shape == (2**36, 0, 16)


def test_a_few_hundred_random_calls_do_not_crash(python: Python, library: Path) -> None:
    done = python("-m", "tests.kernel.fuzz", str(library), "--calls", "300")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 calls" in done.stdout


def test_every_input_has_an_invalid_example() -> None:
    assert {message.split()[0] for message in INVALID} == set(INPUTS)
