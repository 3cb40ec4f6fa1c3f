"""Checkpoints go in and out unchanged, and what is no BSMamba2 is told so."""

from __future__ import annotations

import collections
import itertools

import pytest
import torch
import yaml
from safetensors.torch import save_file

from bsmamba2 import ModelError
from bsmamba2_network import BSMamba2, Config


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_safetensors_go_round_with_their_sizes(micro, tmp_path):
    micro.save(tmp_path / "m.safetensors")
    again = BSMamba2.load(tmp_path / "m.safetensors")
    assert again.config == micro.config
    assert same(again, micro)


def test_lightnings_prefix_windows_and_bookkeeping_are_taken_off(micro, tmp_path):
    state = {f"model.{key}": value for key, value in micro.state_dict().items()}
    state["featurizer.window"] = state["multi_featurizer.0.window"] = torch.ones(8)
    book = collections.defaultdict(list, {"callbacks": [{"best": 1.0}]})
    torch.save({"state_dict": state, "hyper_parameters": book}, tmp_path / "m.ckpt")
    assert same(BSMamba2.load(tmp_path / "m.ckpt", micro.config), micro)


def test_msst_yaml_with_its_tuples_gives_the_sizes(tmp_path):
    # What MSST's yaml has no key for is as in the published network.
    c = Config(n_fft=32, hop=8, bands=(3, 14), dim=16, depth=1, chunk=400)
    model = {"dim": c.dim, "depth": c.depth, "stereo": True, "module_type": "mamba2"}
    model |= {"stft_n_fft": c.n_fft, "stft_hop_length": c.hop, "freqs_per_bands": c.bands}
    document = {"model": model, "audio": {"chunk_size": c.chunk}}
    (tmp_path / "m.yaml").write_text(yaml.dump(document))
    assert "!!python/tuple" in (tmp_path / "m.yaml").read_text()
    torch.save(BSMamba2(c).state_dict(), tmp_path / "m.ckpt")
    assert BSMamba2.load(tmp_path / "m.ckpt", tmp_path / "m.yaml").config == c


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


@pytest.mark.parametrize("key", ["encoder.0.conv.weight", "x\n\x1b[31mok"])
def test_another_network_is_refused_in_one_line(tmp_path, key):
    torch.save({key: torch.ones(2)}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match="not the weights of a BSMamba2") as error:
        BSMamba2.load(tmp_path / "m.ckpt")
    assert str(error.value).isprintable()


def published_shapes():
    """The paper's key table, written out: 675 names and shapes."""
    shapes = {"final_norm.gamma": (256,)}
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


def test_a_checkpoint_of_the_published_keys_is_the_paper(tmp_path):
    shapes = published_shapes()
    torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "m.ckpt")
    net = BSMamba2.load(tmp_path / "m.ckpt")
    assert net.config == Config.preset("paper")
    counts = [value.numel() for value in net.state_dict().values()]
    assert (len(shapes), len(counts), sum(counts)) == (675, 675, 48_098_188)


def test_sizes_of_a_stranger_take_no_memory(micro, tmp_path):
    sizes = micro.config.to_json().replace('"dim": 16', '"dim": 4096')
    save_file(micro.state_dict(), tmp_path / "m.safetensors", {"bsmamba2.config": sizes})
    with pytest.raises(ModelError, match="wrong shape"):
        BSMamba2.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "text",
    ["model: {module_type: mamba2}", "model: {module_type: mamba2, stft_n_fft: x, dim: 1}",
     "a: 2020-13-45", "[" * 5000, "training: [1]", "- 1"],
)  # fmt: skip
def test_a_yaml_of_no_use_is_a_sentence(micro, tmp_path, text):
    micro.save(tmp_path / "m.safetensors")
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ModelError, match="config"):
        BSMamba2.load(tmp_path / "m.safetensors", tmp_path / "m.yaml")
