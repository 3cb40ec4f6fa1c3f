"""Checkpoints are read as float32 under plain names; errors state what other files are."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bsmamba2 import ModelError
from bsmamba2.files.hashing import file_sha256
from bsmamba2.formats.checkpoint import MARK, match, read_checkpoint

TENSORS = {MARK: torch.linspace(-1, 1, 16), "final_norm.gamma": torch.ones(2, 3)}


def read_equal(path: Path, tensors: dict[str, torch.Tensor]) -> bool:
    """Returns whether the checkpoint holds exactly these tensors, in float32."""
    read = read_checkpoint(path).tensors
    assert all(value.dtype == np.float32 for value in read.values())
    return read.keys() == tensors.keys() and all(
        np.array_equal(read[key], value.float().numpy()) for key, value in tensors.items()
    )


def test_a_safetensors_file_is_read_with_its_metadata_hash_and_name(tmp_path: Path) -> None:
    path = tmp_path / "voice.safetensors"
    save_file(TENSORS, path, {"bsmamba2.licence": "MIT"})
    checkpoint = read_checkpoint(path)
    assert read_equal(path, TENSORS)
    assert checkpoint.metadata == {"bsmamba2.licence": "MIT"}
    assert (checkpoint.name, checkpoint.sha256) == ("voice", file_sha256(path))


@pytest.mark.parametrize("wrapper", [None, "state", "state_dict", "model_state_dict"])
def test_a_state_dict_may_be_wrapped(tmp_path: Path, wrapper: str | None) -> None:
    saved = {wrapper: TENSORS, "epoch": 3} if wrapper else TENSORS
    torch.save(saved, tmp_path / "m.ckpt")
    assert read_equal(tmp_path / "m.ckpt", TENSORS)


@pytest.mark.parametrize("prefix", ["model.", "module.", "module.model.", "module._orig_mod."])
def test_prefixes_of_wrapping_modules_are_stripped(tmp_path: Path, prefix: str) -> None:
    torch.save({f"{prefix}{key}": value for key, value in TENSORS.items()}, tmp_path / "m.ckpt")
    assert read_equal(tmp_path / "m.ckpt", TENSORS)


def test_windows_in_the_authors_lightning_file_are_dropped(tmp_path: Path) -> None:
    windows = {"featurizer.window": torch.ones(8), "multi_featurizer.0.window": torch.ones(8)}
    state = {f"model.{key}": value for key, value in TENSORS.items()} | windows
    torch.save({"state_dict": state}, tmp_path / "m.ckpt")
    assert read_equal(tmp_path / "m.ckpt", TENSORS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_other_precisions_are_converted_to_float32(
    tmp_path: Path, dtype: torch.dtype, suffix: str
) -> None:
    tensors = {key: value.to(dtype) for key, value in TENSORS.items()}
    path = tmp_path / f"m.{suffix}"
    torch.save(tensors, path) if suffix == "ckpt" else save_file(tensors, path)
    assert read_equal(path, tensors)


def test_another_network_is_named(tmp_path: Path) -> None:
    torch.save({"BN_mask.0.0.weight": torch.ones(2)}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match=r"m.ckpt is a checkpoint of TS-BSMamba2"):
        read_checkpoint(tmp_path / "m.ckpt")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_truncated_file_is_reported_as_truncated(
    tmp_path: Path, suffix: str, share: float
) -> None:
    path = tmp_path / f"m.{suffix}"
    tensors = {MARK: torch.ones(1000)}
    torch.save(tensors, path) if suffix == "ckpt" else save_file(tensors, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelError, match="truncated"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty \\(0 bytes\\)"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS pointer"),
        (b"RIFF....WAVE", "must be a .safetensors file or a zip"),
        (pickle.dumps({"a": 1}), "bare pickle"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_is_refused_by_what_it_is(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "m.ckpt").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_checkpoint(tmp_path / "m.ckpt")


def test_a_folder_and_a_missing_file_are_distinguished(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        read_checkpoint(tmp_path)
    with pytest.raises(ModelError, match=r"cannot be read \(No such file"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match=r"holds no state dict, .* \(but epoch\)"):
        read_checkpoint(tmp_path / "m.ckpt")


def test_many_tensors_that_share_one_storage_are_refused(tmp_path: Path) -> None:
    one = torch.ones(100_000, dtype=torch.uint8)
    torch.save({f"w{i}": one for i in range(100)}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match="fewer numbers than its tensors together"):
        read_checkpoint(tmp_path / "m.ckpt")


def test_matching_names_every_difference() -> None:
    tensors = {MARK: np.zeros(16, np.float32), "extra": np.zeros(1, np.float32)}
    with pytest.raises(ModelError, match=r"1 missing: .* 1 unexpected: .* 1 wrong shape") as error:
        match(tensors, {MARK: (8,), "absent": (2,)}, "voice")
    for part in ("missing: absent", "unexpected: extra", rf"{MARK} is \(16,\), must be \(8,\)"):
        error.match(part)
    assert len(error.value.__notes__) == 3


def test_matching_shows_untrusted_names_without_escape_sequences() -> None:
    with pytest.raises(ModelError, match="does not hold this network's weights") as error:
        match({"x\n\x1b[31mok": np.ones(1, np.float32)}, {}, "voice")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_numbers_beyond_float32_are_refused_without_a_warning(tmp_path: Path, suffix: str) -> None:
    save = save_file if suffix == "safetensors" else torch.save
    path = tmp_path / f"m.{suffix}"
    save({MARK: torch.full((2,), 1e300, dtype=torch.float64)}, path)
    with pytest.raises(ModelError, match="beyond the range of float32"):
        read_checkpoint(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these")
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(ModelError, match="cannot be read .it is a (named pipe|device)"):
            read_checkpoint(tmp_path / f"{name}.{suffix}")


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_file_that_is_one_hole_is_refused_without_reading_it(tmp_path: Path, suffix: str) -> None:
    with (tmp_path / f"m.{suffix}").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match="is not a checkpoint|more than 16 GiB"):
        read_checkpoint(tmp_path / f"m.{suffix}")


def test_a_safetensors_header_of_many_megabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes((9 << 20).to_bytes(8, "little") + b" " * (9 << 20))
    with pytest.raises(ModelError, match="its header is larger than 8 MiB"):
        read_checkpoint(path)
