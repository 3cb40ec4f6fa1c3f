"""Checkpoints go in and out unchanged, and what is no BSMamba2 is told so."""

from __future__ import annotations

import collections
import os
import pickle
import zipfile

import pytest
import torch
import yaml

from bsmamba2 import ModelError
from bsmamba2_network import BSMamba2


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_safetensors_go_round_with_their_sizes(micro, tmp_path):
    micro.save(tmp_path / "m.safetensors")
    again = BSMamba2.load(tmp_path / "m.safetensors")
    assert again.config == micro.config
    assert same(again, micro)


@pytest.mark.parametrize("wrap", [None, "state", "state_dict", "model_state_dict"])
def test_a_torch_checkpoint_loads_however_it_is_wrapped(micro, tmp_path, wrap):
    state = micro.state_dict()
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "m.ckpt")
    assert same(BSMamba2.load(tmp_path / "m.ckpt", micro.config), micro)


def test_lightnings_prefix_windows_and_bookkeeping_are_taken_off(micro, tmp_path):
    state = {f"model.{key}": value for key, value in micro.state_dict().items()}
    state["featurizer.window"] = state["multi_featurizer.0.window"] = torch.ones(8)
    book = collections.defaultdict(list, {"callbacks": [{"best": 1.0}]})
    torch.save({"state_dict": state, "hyper_parameters": book}, tmp_path / "m.ckpt")
    assert same(BSMamba2.load(tmp_path / "m.ckpt", micro.config), micro)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(micro, tmp_path, dtype):
    torch.save({k: v.to(dtype) for k, v in micro.state_dict().items()}, tmp_path / "m.ckpt")
    loaded = BSMamba2.load(tmp_path / "m.ckpt", micro.config).state_dict()
    assert all(torch.equal(loaded[k], v.to(dtype).float()) for k, v in micro.state_dict().items())


def test_msst_yaml_with_its_tuples_gives_the_sizes(micro, tmp_path):
    c = micro.config
    model = {"dim": c.dim, "depth": c.depth, "stereo": True, "module_type": "mamba2"}
    model |= {"stft_n_fft": c.n_fft, "stft_hop_length": c.hop, "freqs_per_bands": c.bands}
    (tmp_path / "m.yaml").write_text(yaml.dump({"model": model}))
    assert "!!python/tuple" in (tmp_path / "m.yaml").read_text()
    torch.save(BSMamba2(c).state_dict(), tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match="wrong shape"):  # head_dim 8 has no key in MSST's yaml
        BSMamba2.load(tmp_path / "m.ckpt", tmp_path / "m.yaml")


def test_yaml_that_names_code_is_refused(micro, tmp_path):
    micro.save(tmp_path / "m.safetensors")
    (tmp_path / "m.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ModelError, match="not a readable yaml"):
        BSMamba2.load(tmp_path / "m.safetensors", tmp_path / "m.yaml")


def test_every_missing_unexpected_and_misshapen_key_is_named(micro, tmp_path):
    state = micro.state_dict()
    state["extra"] = state.pop("final_norm.gamma")
    state["layers.0.0.linear.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "m.ckpt")
    with pytest.raises(ModelError) as caught:
        BSMamba2.load(tmp_path / "m.ckpt", micro.config)
    for part in ("missing: final_norm.gamma", "unexpected: extra", "linear.bias is \\(3,\\)"):
        caught.match(part)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["BN_mask.0.0.weight"], "TS-BSMamba2"),
        (["layers.0.0.layers.0.0.to_qkv.weight"], "RoFormer"),
        (["encoder.0.conv.weight"], "not the weights of a BSMamba2"),
    ],
)
def test_another_network_is_called_by_its_name(tmp_path, keys, message):
    torch.save({key: torch.ones(2) for key in keys}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match=message):
        BSMamba2.load(tmp_path / "m.ckpt")


def test_a_pickle_that_carries_code_is_refused_and_not_run(tmp_path):
    torch.save({"state_dict": {"a": Attack(tmp_path / "ran")}}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match=r"carries code \(posix\.system\)"):
        BSMamba2.load(tmp_path / "m.ckpt")
    (tmp_path / "bare.ckpt").write_bytes(pickle.dumps(Attack(tmp_path / "ran")))
    with pytest.raises(ModelError, match="bare pickle"):
        BSMamba2.load(tmp_path / "bare.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_truncated_file_is_said_to_be_one(micro, tmp_path, suffix, share):
    path = tmp_path / f"m.{suffix}"
    micro.save(path) if suffix == "safetensors" else torch.save(micro.state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelError, match="truncated"):
        BSMamba2.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty \\(0 bytes\\)"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS pointer"),
        (b"RIFF....WAVE", "must be a .safetensors file or a zip"),
    ],
)
def test_what_is_no_checkpoint_is_told_what_it_is(tmp_path, content, message):
    (tmp_path / "m.ckpt").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        BSMamba2.load(tmp_path / "m.ckpt")


def test_a_directory_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(ModelError, match="is not a file"):
        BSMamba2.load(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        BSMamba2.load(tmp_path / "none.ckpt")


def test_a_compressed_zip_is_refused_before_it_can_unfold(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(ModelError, match="compressed"):
        BSMamba2.load(tmp_path / "m.ckpt")
