"""Files written by torch.save are read without running any code in them."""

from __future__ import annotations

import collections
import os
import struct
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bsmamba2 import ModelError
from bsmamba2.formats.pickle_reader import MAX_ENTRIES, MAX_INSTRUCTIONS, read_torch_file


def read(path: Path) -> Any:
    return read_torch_file(path.read_bytes(), path)


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8],
)
def test_tensors_are_read_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.arange(24).reshape(4, 6).to(dtype)
    torch.save({"a": tensor, "nested": [tensor[1:, ::2], tensor.T]}, tmp_path / "m.ckpt")
    saved = read(tmp_path / "m.ckpt")
    np.testing.assert_array_equal(saved["a"], tensor.double().numpy())
    np.testing.assert_array_equal(saved["nested"][0], tensor[1:, ::2].double().numpy())
    np.testing.assert_array_equal(saved["nested"][1], tensor.T.double().numpy())


def test_plain_values_are_read_and_objects_become_placeholders(tmp_path: Path) -> None:
    values = {"epoch": 3, "rate": 1e-4, "name": "voice", "none": None, "list": [True, (1, 2)]}
    torch.save(values | {"book": collections.Counter("aab")}, tmp_path / "m.ckpt")
    saved = read(tmp_path / "m.ckpt")
    del saved["book"]
    assert saved == values


def test_a_pickle_that_contains_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": Attack(tmp_path / "ran")}}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match=r"contains code \(posix\.system\) and is refused"):
        read(tmp_path / "m.ckpt")
    assert not (tmp_path / "ran").exists()


def test_a_compressed_zip_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(ModelError, match="compressed"):
        read(tmp_path / "m.ckpt")


def test_a_zip_of_other_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.ckpt", "w") as archive:
        archive.writestr("song.txt", "la")
    with pytest.raises(ModelError, match="torch.save did not write it"):
        read(tmp_path / "m.ckpt")


def write_pickled(path: Path, program: bytes, storage: bytes = b"") -> Path:
    """A file in the form of torch.save, around a pickle written by hand."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/data/0", storage)
    return path


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


STORAGE = b"(X\x07\0\0\0storage" + name("torch", "FloatStorage") + b"X\x01\0\0\0"
STORAGE += b"0X\x03\0\0\0cpuK\x04tQ"  # of four floats
REBUILD = name("torch._utils", "_rebuild_tensor_v2")
HUGE = b"\x8a\x0a" + bytes(9) + b"\x01"  # 2 to the power of 72
HOSTILE = {
    "a tensor in a tensor": REBUILD + b"(" + REBUILD + b"(" + STORAGE + b"K\0(K\x02K\x02t(K"
    b"\x02K\x01ttRK\x02(K\x04t(K\x01ttR.",
    "a tensor past its storage": REBUILD + b"(" + STORAGE + b"K\x02(K\x04t(K\x01ttR.",
    "a negative offset": REBUILD + b"(" + STORAGE + b"J\xff\xff\xff\xff(K\x04t(K\x01ttR.",
    "a tuple without end as a storage's key": b"(NN)" + b"\x85" * 100_000 + b"NNtQ.",
    "a tuple without end that is called": b")" + b"\x85" * 100_000 + b")R.",
    "an offset beyond 64 bits": REBUILD + b"(" + STORAGE + HUGE + b"(K\x04t(K\x01ttR.",
    "a stride beyond 64 bits": REBUILD + b"(" + STORAGE + b"K\0(K\0t(" + HUGE + b"ttR.",
    "a size beyond 64 bits": REBUILD + b"(" + STORAGE + b"K\0(K\0" + HUGE + b"t(K\0K\0ttR.",
    "a shape whose product takes a minute": b"("
    + b"J\xff\xff\xff\x7f" * 100_000
    + b"tq\1"
    + (REBUILD + b"(" + STORAGE + b"K\0h\1h\1tR") * 9
    + b".",
    "more dimensions than NumPy has": REBUILD
    + b"("
    + STORAGE
    + b"K\0("
    + b"K\1" * 65
    + b"t("
    + b"K\1" * 65
    + b"ttR.",
    "a stride of no element beyond 64 bits": REBUILD
    + b"("
    + STORAGE
    + b"K\0(K\x01t("
    + HUGE
    + b"ttR.",
    "a run of lists without end": b"]" * (MAX_INSTRUCTIONS + 2) + b".",
    "a long name that is looked up again and again": b"X"
    + struct.pack("<I", 1 << 20)
    + b"n" * (1 << 20)
    + b"q\1"
    + b"X\x05\0\0\0torchh\1\x930" * 9
    + b".",
    "an empty stack": b"R.",
    "no end": b"}",
    "no pickle": b"\xff\xfe",
}


@pytest.mark.parametrize("program", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_pickle_is_refused_without_reading_other_memory(
    tmp_path: Path, program: bytes
) -> None:
    path = write_pickled(tmp_path / "m.ckpt", program, bytes(16))
    with pytest.raises(ModelError, match="is damaged"):
        read(path)


def test_keys_that_may_not_be_hashable_are_skipped(tmp_path: Path) -> None:
    program = b"}" + b")\x85" + b"\x85" * 100_000 + b"K\x01s."
    assert read(write_pickled(tmp_path / "m.ckpt", program)) == {}


@pytest.mark.parametrize(
    "key",
    [HUGE, b"\x8b" + struct.pack("<i", 5000) + b"\x7f" * 5000, b"X\x01\x20\0\0" + b"k" * 8193],
    ids=["beyond 64 bits", "thousands of digits", "thousands of letters"],
)
def test_a_key_that_is_costly_to_hash_or_to_print_is_skipped(tmp_path: Path, key: bytes) -> None:
    program = b"}" + key + b"K\x01s" + b"K\x07K\x01s."
    assert read(write_pickled(tmp_path / "m.ckpt", program)) == {7: 1}


def entries_at_one_place(content: bytes, copies: int) -> bytes:
    """Returns a zip whose directory lists its last file again under other names."""
    start = content.index(b"PK\x01\x02")
    entry = content[content.rindex(b"PK\x01\x02") : content.index(b"PK\x05\x06")]
    names = (b"%08d" % k for k in range(copies))
    directory = content[start : content.index(b"PK\x05\x06")] + b"".join(
        entry[:46] + name for name in names
    )
    count = content.count(b"PK\x01\x02") + copies
    counts = struct.pack("<HHII", count, count, len(directory), start)
    return content[:start] + directory + b"PK\x05\x06\0\0\0\0" + counts + b"\0\0"


def test_entries_that_overlap_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = write_pickled(tmp_path / "m.ckpt", b"}.", bytes(1 << 16))
    path.write_bytes(entries_at_one_place(path.read_bytes(), 500))
    assert len(zipfile.ZipFile(path).infolist()) == 502
    with pytest.raises(ModelError, match="truncated or damaged"):
        read(path)


def test_more_files_than_a_checkpoint_has_are_refused(tmp_path: Path) -> None:
    path = write_pickled(tmp_path / "m.ckpt", b"}.")
    path.write_bytes(path.read_bytes() + b"PK\x01\x02" * MAX_ENTRIES)
    with pytest.raises(ModelError, match="more than 65,536 files"):
        read(path)


def test_an_entry_that_goes_past_the_end_of_the_file_is_refused(tmp_path: Path) -> None:
    content = bytearray(write_pickled(tmp_path / "m.ckpt", b"}.", bytes(64)).read_bytes())
    at = content.index(b"PK\x01\x02")  # of the pickle
    content[at + 20 : at + 28] = struct.pack("<II", 4000, 4000)
    path = tmp_path / "past.ckpt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        read(path)


def test_a_large_memo_index_takes_no_memory(tmp_path: Path) -> None:
    assert read(write_pickled(tmp_path / "m.ckpt", b"Nr\xff\xff\xff\x7f.")) is None


@settings(max_examples=100)
@given(data=st.data())
def test_a_mutated_pickle_is_read_or_refused_in_one_sentence(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = bytearray(REBUILD + b"(" + STORAGE + b"K\0(K\x04t(K\x01ttR.")
    for _ in range(data.draw(st.integers(1, 4))):
        program[data.draw(st.integers(0, len(program) - 1))] = data.draw(st.integers(0, 255))
    path = write_pickled(tmp_path_factory.getbasetemp() / "m.ckpt", bytes(program), bytes(16))
    try:
        read(path)
    except ModelError as error:
        assert str(error).isprintable()


class Call:
    """Stands for a call of Fraction with any arguments."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[object, tuple[Any, ...]]:
        return Fraction, self.arguments


@pytest.mark.parametrize("arguments", [(39, 5), ("39/5",), ("78/10",)])
def test_fractions_are_read_in_both_forms_that_python_writes(
    tmp_path: Path, arguments: tuple[Any, ...]
) -> None:
    torch.save([Call(*arguments), Call("11"), Call(-3)], tmp_path / "m.ckpt")
    assert read(tmp_path / "m.ckpt") == [Fraction(39, 5), 11, -3]


@pytest.mark.parametrize(
    "arguments", [(1, 0), (), ("1e99999999",), ("1/2/3",), (1.5, 2), (1 << 64, 3), (1, 2, 3)]
)
def test_other_fractions_are_damage(tmp_path: Path, arguments: tuple[Any, ...]) -> None:
    torch.save([Call(*arguments)], tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match="is damaged"):
        read(tmp_path / "m.ckpt")
