"""Checkpoints are read and written unchanged, and other files give a clear error."""

from __future__ import annotations

import collections
import itertools
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from bsmamba2 import ModelError
from bsmamba2_network import BSMamba2, Config


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.witness}",)


def have_same_weights(one: BSMamba2, other: BSMamba2) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_safetensors_keep_weights_and_sizes(micro: BSMamba2, tmp_path: Path) -> None:
    micro.save(tmp_path / "m.safetensors")
    loaded = BSMamba2.load(tmp_path / "m.safetensors")
    assert loaded.config == micro.config
    assert have_same_weights(loaded, micro)


@pytest.mark.parametrize("wrap", [None, "state", "state_dict", "model_state_dict"])
def test_a_torch_checkpoint_loads_however_it_is_wrapped(
    micro: BSMamba2, tmp_path: Path, wrap: str | None
) -> None:
    state = micro.state_dict()
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "m.ckpt")
    assert have_same_weights(BSMamba2.load(tmp_path / "m.ckpt", micro.config), micro)


def test_lightnings_prefix_windows_and_bookkeeping_are_ignored(
    micro: BSMamba2, tmp_path: Path
) -> None:
    state = {f"model.{key}": value for key, value in micro.state_dict().items()}
    state["featurizer.window"] = state["multi_featurizer.0.window"] = torch.ones(8)
    bookkeeping = collections.defaultdict(list, {"callbacks": [{"best": 1.0}]})
    torch.save({"state_dict": state, "hyper_parameters": bookkeeping}, tmp_path / "m.ckpt")
    assert have_same_weights(BSMamba2.load(tmp_path / "m.ckpt", micro.config), micro)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(
    micro: BSMamba2, tmp_path: Path, dtype: torch.dtype
) -> None:
    torch.save({k: v.to(dtype) for k, v in micro.state_dict().items()}, tmp_path / "m.ckpt")
    loaded = BSMamba2.load(tmp_path / "m.ckpt", micro.config).state_dict()
    assert all(torch.equal(loaded[k], v.to(dtype).float()) for k, v in micro.state_dict().items())


def test_msst_yaml_with_its_tuples_gives_the_sizes(tmp_path: Path) -> None:
    # MSST's yaml has no key for the other sizes; they are those of the published network.
    c = Config(n_fft=32, hop=8, bands=(3, 14), dim=16, depth=1, chunk=400)
    model = {"dim": c.dim, "depth": c.depth, "stereo": True, "module_type": "mamba2"}
    model |= {"stft_n_fft": c.n_fft, "stft_hop_length": c.hop, "freqs_per_bands": c.bands}
    document = {"model": model, "audio": {"chunk_size": c.chunk}}
    (tmp_path / "m.yaml").write_text(yaml.dump(document))
    assert "!!python/tuple" in (tmp_path / "m.yaml").read_text()
    torch.save(BSMamba2(c).state_dict(), tmp_path / "m.ckpt")
    assert BSMamba2.load(tmp_path / "m.ckpt", tmp_path / "m.yaml").config == c


def test_yaml_that_names_code_is_refused(micro: BSMamba2, tmp_path: Path) -> None:
    micro.save(tmp_path / "m.safetensors")
    (tmp_path / "m.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ModelError, match="config must be a readable yaml file"):
        BSMamba2.load(tmp_path / "m.safetensors", tmp_path / "m.yaml")


def test_every_key_that_is_missing_unexpected_or_of_wrong_shape_is_named(
    micro: BSMamba2, tmp_path: Path
) -> None:
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
        (["encoder.0.conv.weight"], "must hold the weights of a BSMamba2; got the keys encoder"),
    ],
)
def test_the_error_for_another_network_names_it(
    tmp_path: Path, keys: list[str], message: str
) -> None:
    torch.save({key: torch.ones(2) for key in keys}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match=message):
        BSMamba2.load(tmp_path / "m.ckpt")


def test_a_pickle_that_contains_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": Attack(tmp_path / "ran")}}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match=r"carries code \(posix\.system\)"):
        BSMamba2.load(tmp_path / "m.ckpt")
    (tmp_path / "bare.ckpt").write_bytes(pickle.dumps(Attack(tmp_path / "ran")))
    with pytest.raises(ModelError, match="bare pickle"):
        BSMamba2.load(tmp_path / "bare.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_the_error_for_a_truncated_file_says_so(
    micro: BSMamba2, tmp_path: Path, suffix: str, share: float
) -> None:
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
def test_the_error_for_another_kind_of_file_names_the_kind(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "m.ckpt").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        BSMamba2.load(tmp_path / "m.ckpt")


def test_a_directory_and_a_missing_file_have_different_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a file"):
        BSMamba2.load(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        BSMamba2.load(tmp_path / "none.ckpt")


def test_a_compressed_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(ModelError, match="compressed"):
        BSMamba2.load(tmp_path / "m.ckpt")


def published_shapes() -> dict[str, tuple[int, ...]]:
    """The paper's key table, written out: 675 names and shapes."""
    shapes: dict[str, tuple[int, ...]] = {"final_norm.gamma": (256,)}
    for i, j, way in itertools.product(range(6), range(2), ("forward", "backward")):
        block = f"layers.{i}.{j}."
        shapes |= {block + "linear.weight": (512, 256, 1), block + "linear.bias": (256,)}
        mixer = f"{block}{way}_blocks.0.mixer."
        shapes[f"{block}{way}_blocks.0.norm.weight"] = (256,)
        shapes |= {mixer + name: (16,) for name in ("dt_bias", "A_log", "D")}
        shapes |= {mixer + "in_proj.weight": (2320, 256), mixer + "out_proj.weight": (256, 1024)}
        shapes |= {mixer + "conv1d.weight": (1280, 1, 4), mixer + "conv1d.bias": (1280,)}
        shapes[mixer + "norm.weight"] = (1024,)
    for k, bins in enumerate([2] * 24 + [4] * 12 + [12] * 8 + [24] * 8 + [48] * 8 + [128, 129]):
        split, mask = f"band_split.to_features.{k}.", f"mask_estimators.0.to_freqs.{k}.0."
        shapes |= {split + "0.gamma": (4 * bins,), split + "1.bias": (256,)}
        shapes[split + "1.weight"] = (256, 4 * bins)
        shapes |= {mask + "0.weight": (1024, 256), mask + "0.bias": (1024,)}
        shapes |= {mask + "2.weight": (8 * bins, 1024), mask + "2.bias": (8 * bins,)}
    return shapes


def test_a_checkpoint_with_the_published_keys_has_the_papers_sizes(tmp_path: Path) -> None:
    shapes = published_shapes()
    torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "m.ckpt")
    net = BSMamba2.load(tmp_path / "m.ckpt")
    assert net.config == Config.preset("paper")
    counts = [value.numel() for value in net.state_dict().values()]
    assert (len(shapes), len(counts), sum(counts)) == (675, 675, 48_098_188)


def write_checkpoint(path: Path, program: bytes, storage: bytes = b"") -> Path:
    """Writes a file in torch.save's format around a hand-written pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/data/0", storage)
    return path


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


STORAGE = b"(X\x07\0\0\0storage" + name("torch", "FloatStorage") + b"X\x01\0\0\0"
STORAGE += b"0X\x03\0\0\0cpuK\x04tQ"  # of four floats
REBUILD = name("torch._utils", "_rebuild_tensor_v2")


@pytest.mark.parametrize(
    "program",
    {
        "a tensor in a tensor": REBUILD + b"(" + REBUILD + b"(" + STORAGE + b"K\0(K\x02K\x02t(K"
        b"\x02K\x01ttRK\x02(K\x04t(K\x01ttR.",
        "a tensor past its storage": REBUILD + b"(" + STORAGE + b"K\x02(K\x04t(K\x01ttR.",
        "a negative offset": REBUILD + b"(" + STORAGE + b"J\xff\xff\xff\xff(K\x04t(K\x01ttR.",
        "an endlessly nested tuple as a key": b"}" + b")\x85" + b"\x85" * 100_000 + b"K\x01s.",
        "an endlessly nested tuple as a storage's key": b"(NN)" + b"\x85" * 100_000 + b"NNtQ.",
        "an endlessly nested tuple that is called": b")" + b"\x85" * 100_000 + b")R.",
        "a huge memo index": b"Nr\xff\xff\xff\x7f.",
        "an empty stack": b"R.",
        "no stop opcode": b"}",
        "not a pickle": b"\xff\xfe",
    }.items(),
    ids=lambda case: case[0],
)
def test_a_hostile_pickle_is_refused(tmp_path: Path, program: tuple[str, bytes]) -> None:
    path = write_checkpoint(tmp_path / "m.ckpt", program[1], bytes(16))
    with pytest.raises(ModelError, match="damaged|no state dict"):
        BSMamba2.load(path)


def test_many_names_for_one_storage_are_refused(tmp_path: Path) -> None:
    one = torch.ones(100_000, dtype=torch.uint8)
    torch.save({f"w{i}": one for i in range(100)}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match="fewer numbers than its tensors together"):
        BSMamba2.load(tmp_path / "m.ckpt")


def test_bfloat16_safetensors_are_read(micro: BSMamba2, tmp_path: Path) -> None:
    state = {key: value.bfloat16() for key, value in micro.state_dict().items()}
    save_file(state, tmp_path / "m.safetensors")
    loaded = BSMamba2.load(tmp_path / "m.safetensors", micro.config).state_dict()
    assert all(torch.equal(loaded[key], value.float()) for key, value in state.items())


def test_huge_sizes_in_the_metadata_do_not_allocate_memory(micro: BSMamba2, tmp_path: Path) -> None:
    sizes = micro.config.to_json().replace('"dim": 16', '"dim": 4096')
    save_file(micro.state_dict(), tmp_path / "m.safetensors", {"bsmamba2.config": sizes})
    with pytest.raises(ModelError, match="wrong shape"):
        BSMamba2.load(tmp_path / "m.safetensors")


def test_control_characters_in_keys_do_not_reach_the_error(tmp_path: Path) -> None:
    torch.save({"x\n\x1b[31mok": torch.ones(1)}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError) as caught:
        BSMamba2.load(tmp_path / "m.ckpt")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    ["model: {module_type: mamba2}", "model: {module_type: mamba2, stft_n_fft: x, dim: 1}",
     "a: 2020-13-45", "[" * 5000, "training: [1]", "- 1"],
)  # fmt: skip
def test_an_unusable_yaml_gives_a_model_error(micro: BSMamba2, tmp_path: Path, text: str) -> None:
    micro.save(tmp_path / "m.safetensors")
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ModelError, match="config"):
        BSMamba2.load(tmp_path / "m.safetensors", tmp_path / "m.yaml")
