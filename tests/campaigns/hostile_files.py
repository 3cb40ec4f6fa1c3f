"""The strategies of the campaign ``hostile``: files that are valid up to one hostile choice.

Each strategy draws from the structure of its format: instructions and memo of a pickle, entries of
a zip, the header of safetensors, the sizes that weights state about themselves, aliases of yaml,
and nodes, functions and types of ONNX. It returns the suffix and the content of a file.
"""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from onnx import TensorProto, helper

from support.memory_bombs import BOMBS, memory_bomb
from support.models import MANIFEST, gain_model, random_weights

File = tuple[str, bytes]
Draw = random.Random

NUMBERS = (0, 1, -1, 3, 255, 4096, 2**24, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 2**63, 2**72, 10**400)


# Pickles and zips


def pickle_program(draw: Draw) -> File:
    """A few hostile fragments of a pickle around the state dict of one tensor."""
    parts = [draw.choice(FRAGMENTS)(draw) for _ in range(draw.choice((1, 1, 2, 4)))]
    return ".ckpt", zipped(b"}" + b"".join(parts) + draw.choice((b".", b".", b"", b"R.", b"Q.")))


def number(draw: Draw) -> bytes:
    value = draw.choice(NUMBERS)
    size = value.bit_length() // 8 + 1
    return b"\x8b" + struct.pack("<i", size) + value.to_bytes(size, "little", signed=True)


def text(content: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def storage(key: bytes = b"0", count: bytes = b"K\x04") -> bytes:
    kind = name("torch", "FloatStorage")
    return b"(" + text(b"storage") + kind + text(key) + text(b"cpu") + count + b"tQ"


def tensor(draw: Draw) -> bytes:
    """An entry of the state dict whose tensor has drawn offsets, shapes and strides."""
    shape = b"".join(number(draw) for _ in range(draw.choice((1, 2, 40))))
    strides = b"".join(number(draw) for _ in range(draw.choice((1, 2, 40))))
    parts = storage() + number(draw) + b"(" + shape + b"t(" + strides + b"t"
    return text(b"w") + name("torch._utils", "_rebuild_tensor_v2") + b"(" + parts + b"tRs"


def memoised_shape(draw: Draw) -> bytes:
    """One long shape, used by many tensors."""
    shape = b"(" + b"J\xff\xff\xff\x7f" * draw.choice((9, 1000, 150_000)) + b"tq\x01" + b"0"
    once = text(b"w") + name("torch._utils", "_rebuild_tensor_v2")
    once += b"(" + storage() + b"K\x00h\x01h\x01tRs"
    return shape + once * draw.choice((1, 50))


FRAGMENTS: tuple[Callable[[Draw], bytes], ...] = (
    tensor,
    memoised_shape,
    lambda draw: draw.choice((b"]", b"}", b")", b"(", b"N")) * draw.choice((99, 10**6, 20 * 10**6)),
    lambda draw: b")" + b"\x85" * draw.choice((99, 10**5)),
    lambda draw: number(draw) + b"K\x01s",
    lambda draw: text(b"k" * draw.choice((1, 10**6))) + b"q\x02" + b"h\x02K\x01s" * 10_000,
    lambda draw: (
        text(b"n" * 10**6) + b"q\x03" + text(b"torch") + b"h\x03\x93" * draw.choice((1, 9))
    ),
    lambda draw: name(draw.choice(("os", "builtins", "torch")), draw.choice(("system", "eval"))),
    lambda draw: b"]q\x04" + b"h\x04a" * draw.choice((9, 10**5)),
    lambda draw: b"I" + b"9" * draw.choice((10, 5000)) + b"\n0",
)


def zipped(program: bytes, data: bytes = bytes(16)) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/data/0", data)
    return file.getvalue()


def zip_directory(draw: Draw) -> File:
    """A zip whose directory repeats its last entry, or states drawn sizes and places."""
    tensors = b"}" + text(b"w") + name("torch._utils", "_rebuild_tensor_v2")
    tensors += b"(" + storage(count=b"J\x00\x00\x04\x00") + b"K\x00(K\x04t(K\x01ttRs."
    content = zipped(tensors, bytes(1 << 20))
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    directory = bytearray(content[start:end])
    if draw.random() < 0.5:
        last = directory.rindex(b"PK\x01\x02")
        entry = bytes(directory[last : last + 46])
        copies = draw.choice((9, 2000, 70_000))
        directory += b"".join(entry + b"%08d" % k for k in range(copies))
    for _ in range(draw.choice((0, 1, 2))):
        at = draw.choice((0, directory.rindex(b"PK\x01\x02"))) + draw.choice((8, 10, 20, 24, 42))
        directory[at : at + 4] = struct.pack("<I", draw.choice(NUMBERS) & 0xFFFFFFFF)
    count = min(directory.count(b"PK\x01\x02"), 0xFFFF)
    tail = struct.pack("<HHIIH", count, count, len(directory), start, 0)
    return ".ckpt", content[:start] + bytes(directory) + b"PK\x05\x06\0\0\0\0" + tail


# Weights


def hostile_weights(draw: Draw) -> File:
    """Weights of the size tiny, one of them hostile."""
    weights: dict[str, np.ndarray] = dict(random_weights())
    key = draw.choice(sorted(weights))
    value = draw.choice((1e300, -1e300, 1e38, np.nan, np.inf, 0.0))
    dtype = draw.choice(("f8", "f4", "i8", "u1"))
    with np.errstate(all="ignore"):
        weights[key] = np.full(weights[key].shape, value).astype(dtype)
    return ".safetensors", safetensors.numpy.save(weights)


def stated_sizes(draw: Draw) -> File:
    """Weights of the size tiny that state drawn lengths about themselves."""
    sizes = {"stems": ["vocals"], "sample_rate": 44100, "hop": 512, "chunk": 176400}
    for key in draw.sample(["sample_rate", "hop", "chunk"], draw.choice((1, 2, 3))):
        sizes[key] = draw.choice((1, 2, 16, 511, 2048, 384000, *NUMBERS))
    if draw.random() < 0.2:
        sizes["stems"] = draw.choice(([], ["a", "b"], ["\x1b[31m"], [["x"]], 5, ["../x"]))
    config = {"bsmamba2.config": json.dumps(sizes)}
    return ".safetensors", safetensors.numpy.save(random_weights(), config)


def safetensors_header(draw: Draw) -> File:
    """A header with drawn types, shapes and places."""
    entries = {}
    for k in range(draw.choice((1, 3, 50_000))):
        shape = [abs(draw.choice(NUMBERS)) for _ in range(draw.choice((0, 1, 2, 70)))]
        dtype = draw.choice(("F32", "F64", "BF16", "U64", "F8_E4M3", "x"))
        entries[f"w{k}"] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [0, draw.choice((0, 4))],
        }
    header = draw.choice((json.dumps(entries), "[" * 10**6, "{" + '"a":' * 10**5)).encode()
    size = draw.choice((len(header), len(header), 2**40, 0))
    return ".safetensors", size.to_bytes(8, "little") + header + bytes(4)


# Yaml


def hostile_yaml(draw: Draw) -> File:
    """MSST's yaml with a hostile value, key or chain of aliases."""
    size = draw.choice((3, 9, 30))
    tag = draw.choice(("", "!!python/tuple ", "!!set "))
    lines = [f"a0: &a0 {tag}[x, x]"]
    lines += [
        f"a{k}: &a{k} {tag}[{', '.join([f'*a{k - 1}'] * draw.choice((2, 9)))}]"
        for k in range(1, size)
    ]
    model = {"module_type": "mamba2", "stft_n_fft": 2048, "stft_hop_length": 441, "dim": 32}
    model |= {"depth": 1, draw.choice((*model, "num_stems", "freqs_per_bands")): "VALUE"}
    value = draw.choice(
        (f"*a{size - 1}", str(draw.choice(NUMBERS)), "[" * draw.choice((5, 9999)), "!!int ''",
         "0x" + "f" * 9999, "!!binary x", ".nan", "!!python/object/apply:os.system [ls]",
         f"[{'1, ' * draw.choice((2, 1025, 9000))}]", "!!timestamp x", "&b [*b]", "{? [1] : 2}")
    )  # fmt: skip
    where = draw.choice(("model", "audio", "training", "key"))
    text = json.dumps(model).replace('"VALUE"', value if where == "model" else "1")
    lines.append(f"model: {text}")
    if where == "key":
        lines.append(f"? {value}\n: 1")
    elif where != "model":
        key = draw.choice(("chunk_size", "sample_rate", "instruments", "target_instrument"))
        lines.append(f"{where}: {{{key}: {value}}}")
    if draw.random() < 0.7:
        lines = lines[:1] + lines[size:]  # without the chain of aliases
    return ".yaml", "\n".join(lines).encode()


# ONNX


def hostile_onnx(draw: Draw) -> File:
    model = onnx.load_from_string(gain_model())
    draw.choice(CHANGES)(model, draw)
    return ".onnx", model.SerializeToString()


def add_loop(model: onnx.ModelProto, draw: Draw) -> None:
    """An operator that contains a graph, which may run without end."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["cond_in"], ["cond_out"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("cond_in", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("cond_out", TensorProto.BOOL, [])],
    )  # fmt: skip
    yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("t", 9, [], [True]))
    loop = helper.make_node(draw.choice(("Loop", "Scan", "If")), ["", "yes"], [], body=inner)
    if draw.random() < 0.5:
        opsets = [helper.make_opsetid("", 20)]
        model.functions.append(helper.make_function("d", "f", [], [], [yes, loop], opsets))
        model.opset_import.append(helper.make_opsetid("d", 1))
        model.graph.node.append(helper.make_node("f", [], [], domain="d"))
    else:
        model.graph.node.extend([yes, loop])


def add_functions(model: onnx.ModelProto, draw: Draw) -> None:
    """Functions that call each other a few times, or without end."""
    depth, width = draw.choice(((3, 2), (9, 3), (40, 2), (2, 300), (300, 1)))
    for k in range(depth):
        callee = f"f{k - 1}" if k or draw.random() < 0.9 else f"f{depth - 1}"
        nodes = [
            helper.make_node(callee if k or callee != "f-1" else "Neg", [f"t{n}"], [f"t{n + 1}"],
                             domain="d" if k or callee != "f-1" else "")
            for n in range(width)
        ]  # fmt: skip
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("d", 1)]
        made = helper.make_function("d", f"f{k}", ["t0"], [f"t{width}"], nodes, opsets)
        model.functions.append(made)
    model.opset_import.append(helper.make_opsetid("d", 1))
    model.graph.node.append(helper.make_node(f"f{depth - 1}", ["stems"], ["y"], domain="d"))
    model.graph.output[0].name = "y"


def change_output(model: onnx.ModelProto, draw: Draw) -> None:
    kind = draw.choice((2, 3, 6, 7, 8, 9, 10, 11, 16))
    operator = draw.choice(("Cast", "Shape", "Size", "SequenceConstruct", "Flatten", "Identity"))
    extra: dict[str, Any] = {"to": kind} if operator == "Cast" else {}
    model.graph.node.append(helper.make_node(operator, ["stems"], ["y"], **extra))
    if draw.random() < 0.7:
        del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", kind, None))


def change_location(model: onnx.ModelProto, draw: Draw) -> None:
    place = draw.choice(("../x", "/etc/passwd", "a\0b", "", ".", "\x1b[31m", "x" * 5000, "weights"))
    content = onnx.load_from_string(gain_model(location="x"))
    content.graph.initializer[0].external_data[0].value = place
    model.CopyFrom(content)


def change_manifest(model: onnx.ModelProto, draw: Draw) -> None:
    fields = json.loads(MANIFEST.to_json())
    noise = np.full(3, draw.choice((np.nan, np.inf, 0, 1)), "<f4")
    check = {"seed": 0, "samples": draw.choice((1, 4410, 2**22)), "stride": 20, "snr_db": 60.0}
    fields["check"] = check | {"expected": base64.b64encode(noise.tobytes()).decode()}
    key = draw.choice(sorted(fields))
    fields[key] = draw.choice((fields[key], *NUMBERS[:-1], [], "x\x1b", None, [["a"]] * 9))
    if draw.random() < 0.3:
        fields["states"] = [{"name": "s", "shape": [1, draw.choice(NUMBERS[:-1])]}]
    model.metadata_props[0].value = json.dumps(fields)


def ask_for_memory(model: onnx.ModelProto, draw: Draw) -> None:
    """An operator whose result has from a megabyte to a terabyte, at load or at run."""
    size = 1 << draw.randrange(20, 41)
    model.ParseFromString(memory_bomb(draw.choice(sorted(BOMBS)), size))


def add_sparse(model: onnx.ModelProto, draw: Draw) -> None:
    values, at = helper.make_tensor("s", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [5])
    sparse = helper.make_sparse_tensor(values, at, [draw.choice((9, 2**20, 2**30, 2**40))])
    if draw.random() < 0.5:
        model.graph.sparse_initializer.append(sparse)
    else:
        model.graph.node.append(helper.make_node("Constant", [], ["y"], sparse_value=sparse))


CHANGES = (
    add_loop,
    add_functions,
    change_output,
    change_location,
    change_manifest,
    ask_for_memory,
    add_sparse,
)


STRATEGIES: dict[str, Callable[[Draw], File]] = {
    "pickle": pickle_program,
    "zip directory": zip_directory,
    "weights": hostile_weights,
    "stated sizes": stated_sizes,
    "safetensors header": safetensors_header,
    "yaml": hostile_yaml,
    "onnx": hostile_onnx,
}
