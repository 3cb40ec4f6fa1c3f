"""What does not fit is a sentence from ONNX Runtime, never a crash."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest
from onnx import TensorProto

from .scans import INPUTS, REGISTER, model, random_scan, session

SIZES = {"head_dim": 8, "state_size": 8}


def resized(name, *shape):
    return lambda scan: scan.but(**{name: np.zeros(shape, np.float32)})


MISFITS = {
    "zxbcdt must have 3 dimensions; got 2": resized("zxbcdt", 70, 50),
    "zxbcdt must have 2 * heads * head_dim + 2 * state_size + heads = 50 columns; got 49": resized(
        "zxbcdt", 2, 5, 49
    ),
    "A_log must have 1 dimensions; got 0": resized("A_log"),
    "A_log must have at least one head": resized("A_log", 0),
    "conv_weight must have 2 to 4 taps; got 5": resized("conv_weight", 32, 1, 5),
    "conv_weight must have the shape (32, 1, 4); got (31, 1, 4)": resized("conv_weight", 31, 1, 4),
    "conv_bias must have the shape (32); got (33)": resized("conv_bias", 33),
    "dt_bias must have the shape (2)": resized("dt_bias", 1),
    "D must have the shape (2)": resized("D", 16),
    "norm_weight must have the shape (16)": resized("norm_weight", 1),
    "conv_state must have the shape (1 or 2, 32, 3); got (3, 32, 3)": resized(
        "conv_state", 3, 32, 3
    ),
    "ssm_state must have the shape (1 or 2, 2, 8, 8)": resized("ssm_state", 2, 2, 8, 9),
}  # fmt: skip


@pytest.mark.parametrize("sentence", MISFITS)
def test_a_tensor_that_does_not_fit_is_refused_by_name(run, sentence):
    with pytest.raises(Exception, match=re.escape(f"mamba2_scan: {sentence}")):
        run(MISFITS[sentence](random_scan()))


def test_tokens_that_are_neither_float32_nor_float16_are_refused(library):
    scan = random_scan()
    double = scan.but(zxbcdt=scan["zxbcdt"].astype(np.float64))
    loaded = session(library, model(kind=TensorProto.DOUBLE, **SIZES))
    with pytest.raises(Exception, match="zxbcdt must be float32 or float16"):
        loaded.run(None, double.tensors)


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"head_dim": 0, "state_size": 8}, "head_dim must be 1 to 65536; got 0"),
        ({"head_dim": 8, "state_size": -1}, "state_size must be 1 to 65536; got -1"),
        ({"state_size": 8}, "the attribute head_dim is missing"),
        ({"head_dim": 8.0, "state_size": 8}, "the attribute head_dim is missing or of the wrong"),
        (SIZES | {"reverse": 2}, "reverse must be 0 or 1; got 2"),
        (SIZES | {"reverse": 1.0}, "the attribute reverse is missing or of the wrong kind"),
        (SIZES | {"epsilon": -1.0}, "epsilon must not be negative"),
        (SIZES | {"epsilon": float("nan")}, "epsilon must not be negative"),
    ],
)
def test_an_attribute_out_of_range_is_refused_when_the_model_loads(library, attributes, sentence):
    with pytest.raises(Exception, match=f"mamba2_scan: {sentence}"):
        session(library, model(**attributes))


def test_reverse_and_epsilon_may_be_left_out(library, run):
    scan = random_scan()
    plain = session(library, model(**SIZES)).run(None, scan.tensors)
    for got, wanted in zip(plain, run(scan), strict=True):
        np.testing.assert_array_equal(got, wanted)


class OldRuntime:
    """ONNX Runtime 1.16 as far as a library asks before it registers: no version 17, a status."""

    def __init__(self):
        self.said = []
        version = ctypes.create_string_buffer(b"1.16.3")
        function, pointer = ctypes.CFUNCTYPE, ctypes.c_void_p
        number, text = ctypes.c_uint32, ctypes.c_char_p
        self.calls = [
            function(pointer, ctypes.c_int, text)(lambda _, said: self.said.append(said) or 1),
            function(pointer, number)(lambda v: ctypes.addressof(self.api) if v < 17 else 0),
            function(pointer)(lambda: ctypes.addressof(version)),
        ]
        places = [ctypes.cast(call, pointer) for call in self.calls]
        self.api = (pointer * 300)(places[0])
        self.base = (pointer * 2)(*places[1:])


def test_an_older_onnx_runtime_is_refused_with_both_versions(library):
    old = OldRuntime()
    assert ctypes.CDLL(str(library)).RegisterCustomOps(None, old.base)
    assert old.said == [b"bsmamba2's kernels need ONNX Runtime 1.17 or newer; this is 1.16.3."]


def test_an_unknown_instruction_set_is_refused_with_those_there_are(python, library):
    asked = python("-c", REGISTER.format(library), BSMAMBA2_ISA="mmx")
    assert asked.returncode != 0
    assert "BSMAMBA2_ISA must be one of" in asked.stderr
    assert "portable here; got mmx" in asked.stderr


def test_sequences_without_tokens_cost_nothing_however_many_they_are(run):
    scan = random_scan(states=1).but(zxbcdt=np.zeros((2**36, 0, 50), np.float32))
    assert run(scan, outputs=("y",))[0].shape == (2**36, 0, 16)


def test_a_few_hundred_random_calls_do_not_crash(python, library):
    done = python("-m", "tests.kernel.fuzz", str(library), "--calls", "300")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 calls" in done.stdout


def test_every_input_has_a_misfit():
    assert {sentence.split()[0] for sentence in MISFITS} == set(INPUTS)
