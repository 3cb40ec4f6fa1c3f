"""Checkpoints are read and written unchanged, and other files give a clear error."""

from __future__ import annotations

import collections
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from bsmamba2 import ModelError
from bsmamba2.formats.checkpoint import read_checkpoint
from bsmamba2.models.registry import DEFAULT, find_published, shipped
from bsmamba2_network import BSMamba2, Config, RoFormer, RoFormerConfig


def have_same_weights(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_safetensors_keep_weights_and_sizes(micro: BSMamba2, tmp_path: Path) -> None:
    micro.save(tmp_path / "m.safetensors")
    loaded = BSMamba2.load(tmp_path / "m.safetensors")
    assert loaded.config == micro.config
    assert have_same_weights(loaded, micro)


def test_a_name_is_loaded_like_its_file() -> None:
    assert have_same_weights(BSMamba2.load(DEFAULT), BSMamba2.load(shipped()[DEFAULT]))


def test_a_saved_network_keeps_the_licence_and_notes_of_its_checkpoint(
    micro: BSMamba2, tmp_path: Path
) -> None:
    stated = {"bsmamba2.licence": "MIT", "notes": "by ear"}
    stated["bsmamba2.config"] = micro.config.to_json()
    save_file(micro.state_dict(), tmp_path / "m.safetensors", stated)
    BSMamba2.load(tmp_path / "m.safetensors").save(tmp_path / "again.safetensors")
    with safe_open(tmp_path / "again.safetensors", "pt") as file:
        assert file.metadata() == stated
    assert read_checkpoint(tmp_path / "again.safetensors").licence == "MIT"


def test_a_saved_network_keeps_the_licence_that_the_catalogue_states(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net, published = roformer(), find_published("mel_band_roformer_kim")
    net.save(tmp_path / "m.safetensors")
    monkeypatch.setattr("bsmamba2_network.checkpoints.find_by_sha256", lambda sha256: published)
    RoFormer.load(tmp_path / "m.safetensors").save(tmp_path / "again.safetensors")
    assert read_checkpoint(tmp_path / "again.safetensors").licence == published.licence


def test_lightnings_prefix_windows_and_bookkeeping_are_ignored(
    micro: BSMamba2, tmp_path: Path
) -> None:
    state = {f"model.{key}": value for key, value in micro.state_dict().items()}
    state["featurizer.window"] = state["multi_featurizer.0.window"] = torch.ones(8)
    bookkeeping = collections.defaultdict(list, {"callbacks": [{"best": 1.0}]})
    torch.save({"state_dict": state, "hyper_parameters": bookkeeping}, tmp_path / "m.ckpt")
    assert have_same_weights(BSMamba2.load(tmp_path / "m.ckpt", micro.config), micro)


def test_msst_yaml_with_its_tuples_gives_the_sizes(tmp_path: Path) -> None:
    # MSST's yaml has no key for the other sizes, which must be those of the published network.
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


@pytest.mark.parametrize("key", ["encoder.0.conv.weight", "x\n\x1b[31mok"])
def test_another_network_is_refused_in_one_line(tmp_path: Path, key: str) -> None:
    torch.save({key: torch.ones(2)}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match="is (not )?a checkpoint of") as error:
        BSMamba2.load(tmp_path / "m.ckpt")
    assert str(error.value).isprintable()


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


def test_huge_sizes_in_the_metadata_do_not_allocate_memory(micro: BSMamba2, tmp_path: Path) -> None:
    sizes = micro.config.to_json().replace('"dim": 16', '"dim": 4096')
    save_file(micro.state_dict(), tmp_path / "m.safetensors", {"bsmamba2.config": sizes})
    with pytest.raises(ModelError, match="wrong shape"):
        BSMamba2.load(tmp_path / "m.safetensors")


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


def roformer(**changes: Any) -> RoFormer:
    sizes: dict[str, Any] = {"n_fft": 64, "hop": 16, "bands": (16, 17), "dim": 8, "depth": 2}
    torch.manual_seed(0)
    return RoFormer(RoFormerConfig(**sizes | {"heads": 2, "head_dim": 4, "chunk": 400} | changes))


def test_a_roformers_safetensors_keep_weights_and_sizes(tmp_path: Path) -> None:
    net = roformer(skip_connection=True, zero_dc=True)
    net.save(tmp_path / "m.safetensors")
    loaded = RoFormer.load(tmp_path / "m.safetensors")
    assert loaded.config == net.config
    assert have_same_weights(loaded, net)


def test_a_roformers_shared_rotation_comes_from_the_file_and_stays_shared(tmp_path: Path) -> None:
    net = roformer()
    for value in net.parameters():
        value.data += 1
    torch.save({"state_dict": net.state_dict()}, tmp_path / "m.ckpt")
    loaded = RoFormer.load(tmp_path / "m.ckpt", net.config)
    assert have_same_weights(loaded, net)
    assert len(list(loaded.parameters())) == len(list(net.parameters()))


def test_copies_of_a_shared_tensor_that_differ_are_refused(tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in roformer().state_dict().items()}
    state["layers.1.0.layers.0.0.rotary_embed.freqs"] *= 2
    torch.save(state, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match=r"same values in layers\.0\.0\..* and layers\.1\.0\."):
        RoFormer.load(tmp_path / "m.ckpt", roformer().config)


@pytest.mark.parametrize("network", [BSMamba2, RoFormer])
def test_a_yaml_that_contradicts_the_weights_is_refused_with_both_values(
    micro: BSMamba2, tmp_path: Path, network: type[BSMamba2] | type[RoFormer]
) -> None:
    net = micro if network is BSMamba2 else roformer()
    net.save(tmp_path / "m.safetensors")
    model = {"module_type": "mamba2", "dim": 32, "depth": 2, "stereo": True, "stft_n_fft": 64}
    model |= {"stft_hop_length": 16, "freqs_per_bands": [16, 17]}
    (tmp_path / "m.yaml").write_text(yaml.dump({"model": model}))
    with pytest.raises(ModelError, match=rf"dim is 32 in the config and {net.config.dim} in the"):
        network.load(tmp_path / "m.safetensors", tmp_path / "m.yaml")


@pytest.mark.parametrize("change", ["missing", "unexpected", "wrong shape"])
def test_a_changed_roformer_is_refused(tmp_path: Path, change: str) -> None:
    net = roformer()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    key = "layers.0.1.layers.0.1.net.4.bias"
    if change == "missing":
        del state[key]
    else:
        state[key + "2" * (change == "unexpected")] = torch.zeros(3)
    torch.save(state, tmp_path / "m.ckpt")
    with pytest.raises(ModelError, match=change):
        RoFormer.load(tmp_path / "m.ckpt", net.config)
