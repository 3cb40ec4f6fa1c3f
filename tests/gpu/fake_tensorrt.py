"""A TensorRT that is made up, for engines without a GPU."""

from __future__ import annotations

import ctypes

import numpy as np


class FakeTensorRT:
    """Its engines return their input: the identity, with no latency."""

    __version__ = "1.7"

    class Logger:
        ERROR = 1

        def __init__(self, level):
            pass

    class Runtime:
        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, data):
            return None if data == b"nothing" else self

        def create_execution_context(self):
            self.addresses = {}
            return self

        def set_input_shape(self, name, shape):
            self.bytes = 4 * int(np.prod(shape))

        def set_tensor_address(self, name, address):
            self.addresses[name] = address

        def execute_async_v3(self, stream):
            ctypes.memmove(self.addresses["stems"], self.addresses["spectrum"], self.bytes)
            return True
