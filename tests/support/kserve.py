"""A small server of the KServe v2 protocol on loopback, with tritonclient's binary tensors.

It reads a repository that ``bsmamba2 triton`` wrote: configurations with Triton's own schema, and
graphs with ONNX Runtime. It has Triton's rules for streams, and faults that a client must survive.
"""

from __future__ import annotations

import importlib.util
import json
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache, cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from google.protobuf import json_format, text_format

from bsmamba2.audio.array import Audio
from bsmamba2.devices.kernel import library

Tensors: TypeAlias = dict[str, Audio]
Fault: TypeAlias = Callable[["BaseHTTPRequestHandler", "KServe"], bool]
"""Does something to an inference before it runs; returns whether it answered."""


def read_config(text: str) -> Any:
    """Parses ``config.pbtxt`` with Triton's schema."""
    return text_format.Parse(text, _schema().ModelConfig())


@cache
def _schema() -> Any:
    """Loads the schema that tritonclient contains; the rest of its package needs gRPC."""
    found = importlib.util.find_spec("tritonclient")
    assert found is not None
    (folder,) = found.submodule_search_locations or [""]
    path = Path(folder, "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ServedModel:
    """A folder of the repository: its configuration, and its graph in ONNX Runtime."""

    def __init__(self, folder: Path) -> None:
        self.config = read_config((folder / "config.pbtxt").read_text())
        self._path = folder / "1" / self.config.default_model_filename
        self._streams: dict[int, Tensors] = {}
        self._lock = threading.Lock()

    @cached_property
    def session(self) -> Any:
        """The graph, with the native kernels if there are any: it loads several times faster."""
        options = onnxruntime.SessionOptions()
        if (native := library()) is not None:
            options.register_custom_ops_library(str(native))
        return onnxruntime.InferenceSession(self._path, options)

    @property
    def metadata(self) -> dict[str, Any]:
        """The answer about the model, in the form of the protocol."""
        batch = [-1] if self.config.max_batch_size else []

        def listed(tensors: Iterable[Any]) -> list[dict[str, Any]]:
            return [
                {"name": t.name, "datatype": "FP32", "shape": [*batch, *t.dims]} for t in tensors
            ]

        return {
            "name": self.config.name,
            "inputs": listed(self.config.input),
            "outputs": listed(self.config.output),
        }

    def run(self, inputs: Tensors, parameters: Mapping[str, Any]) -> Tensors:
        """Runs the graph; a stream's states are kept from one request to the next."""
        states = self.config.sequence_batching.state
        if not states:
            return self._run(inputs)
        number = parameters["sequence_id"]
        if parameters["sequence_start"]:
            self._streams[number] = {
                s.input_name: np.zeros(s.initial_state[0].dims, np.float32) for s in states
            }
        if number not in self._streams:
            raise ValueError(f"inference request for sequence {number} must specify the START flag")
        outputs = self._run(inputs | self._streams[number])
        self._streams[number] = {s.input_name: outputs.pop(s.output_name) for s in states}
        if parameters["sequence_end"]:
            del self._streams[number]
        return outputs

    @property
    def streams(self) -> int:
        """The number of streams whose states are kept."""
        return len(self._streams)

    def forget_streams(self) -> None:
        """Loses all states, as a server that restarts."""
        self._streams = {}

    def _run(self, inputs: Tensors) -> Tensors:
        with self._lock:
            names = [output.name for output in self.session.get_outputs()]
            return dict(zip(names, self.session.run(names, inputs), strict=True))


class KServe:
    """Serves a repository at ``url``.

    Each inference first passes the next of ``faults``. ``inferences`` holds the parameters of each
    one that arrived, and ``headers`` those of the last request.
    """

    def __init__(self, repository: Path, tls: tuple[Path, Path] | None = None) -> None:
        folders = [path for path in repository.iterdir() if path.is_dir()]
        self.models = {folder.name: ServedModel(folder) for folder in folders}
        self.faults: deque[Fault] = deque()
        self.inferences: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.is_triton = True
        self.closed = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.headers = dict(self.headers)
                owner.describe(self)

            def do_POST(self) -> None:
                owner.headers = dict(self.headers)
                if self.path == "/v2/repository/index":
                    self.rfile.read(int(self.headers["Content-Length"]))
                    owner.list_models(self)
                else:
                    owner.infer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Http(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:  # a client may go away
                pass

        self._http = Http(("127.0.0.1", 0), Handler)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://localhost:{self._http.server_port}"

    def __enter__(self) -> KServe:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self._http.shutdown()
        self._http.server_close()

    def describe(self, request: BaseHTTPRequestHandler) -> None:
        """Answers ``v2/models/NAME`` and ``v2/models/NAME/config``."""
        parts = request.path.strip("/").split("/")
        name, kind = parts[2], parts[3] if len(parts) > 3 else ""
        if name not in self.models or (kind and not self.is_triton):
            answer(request, 404, {"error": f"Request for unknown model: '{name}' is not found"})
        elif kind:
            config = self.models[name].config
            stated = json_format.MessageToDict(config, preserving_proto_field_name=True)
            answer(request, 200, stated)
        else:
            answer(request, 200, self.models[name].metadata)

    def list_models(self, request: BaseHTTPRequestHandler) -> None:
        """Answers ``v2/repository/index``, an extension of Triton."""
        if not self.is_triton:
            answer(request, 404, {"error": "Not Found"})
        else:
            answer(request, 200, [{"name": name, "state": "READY"} for name in self.models])

    def infer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers ``v2/models/NAME/infer``."""
        body = request.rfile.read(int(request.headers["Content-Length"]))
        length = int(request.headers["Inference-Header-Content-Length"])
        asked = json.loads(body[:length])
        self.inferences.append(asked.get("parameters", {}))
        if self.faults and self.faults.popleft()(request, self):
            return
        inputs: Tensors = {}
        for tensor in asked["inputs"]:
            size = tensor["parameters"]["binary_data_size"]
            values = np.frombuffer(body[length : length + size], np.float32)
            inputs[tensor["name"]] = values.reshape(tensor["shape"])
            length += size
        try:
            found = self.models[request.path.split("/")[3]].run(inputs, self.inferences[-1])
        except Exception as error:  # ONNX Runtime's errors have no common class
            answer(request, 400, {"error": str(error)})
            return
        outputs = {tensor["name"]: found[tensor["name"]] for tensor in asked["outputs"]}
        answer_tensors(request, outputs)


def answer(request: BaseHTTPRequestHandler, status: int, content: Any) -> None:
    """Answers with JSON."""
    body = json.dumps(content).encode()
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def answer_tensors(
    request: BaseHTTPRequestHandler, tensors: Mapping[str, Any], datatype: str = "FP32"
) -> None:
    """Answers with tensors in binary form."""
    listed = [
        {
            "name": name,
            "datatype": datatype,
            "shape": values.shape,
            "parameters": {"binary_data_size": values.nbytes},
        }
        for name, values in tensors.items()
    ]
    header = json.dumps({"outputs": listed}).encode()
    body = header + b"".join(np.ascontiguousarray(v).tobytes() for v in tensors.values())
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.send_header("Inference-Header-Content-Length", str(len(header)))
    request.end_headers()
    request.wfile.write(body)


def status(code: int, message: str = "not now") -> Fault:
    """A fault: the server answers with an error."""

    def fault(request: BaseHTTPRequestHandler, _: KServe) -> bool:
        answer(request, code, {"error": message})
        return True

    return fault


def hang_up(request: BaseHTTPRequestHandler, _: KServe) -> bool:
    """A fault: the connection is cut in the middle of an answer."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"{")
    request.close_connection = True
    return True


def stall(request: BaseHTTPRequestHandler, server: KServe) -> bool:
    """A fault: no answer before the server is closed, at most 20 s."""
    server.closed.wait(20)
    request.close_connection = True
    return True


def trickle(request: BaseHTTPRequestHandler, server: KServe) -> bool:
    """A fault: an answer of one byte every 50 ms, so that no single read takes long."""
    request.send_response(200)
    request.send_header("Content-Length", "100000")
    request.end_headers()
    with suppress(OSError):
        while not server.closed.wait(0.05):
            request.wfile.write(b" ")
    request.close_connection = True
    return True


def returning(shape: tuple[int, ...], datatype: str = "FP32", name: str = "stems") -> Fault:
    """A fault: an output of another shape, type or name."""

    def fault(request: BaseHTTPRequestHandler, _: KServe) -> bool:
        answer_tensors(request, {name: np.zeros(shape, np.float32)}, datatype)
        return True

    return fault
