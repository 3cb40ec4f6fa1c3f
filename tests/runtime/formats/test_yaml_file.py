"""Yaml files are untrusted: no code runs, and no alias stands for more values than are written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bsmamba2 import ModelError
from bsmamba2.formats.yaml_file import MAX_BYTES, read_yaml
from bsmamba2_network.config import Config

MODEL = "{module_type: mamba2, stft_n_fft: 2048, stft_hop_length: 441, dim: 32, depth: 1}"


def write(folder: Path, text: str) -> Path:
    path = folder / "m.yaml"
    path.write_text(text)
    return path


def bomb(levels: int, tag: str = "") -> str:
    """Each line holds the line before nine times."""
    lines = [f"a0: &a0 {tag}[x, x]"]
    lines += [f"a{k}: &a{k} {tag}[{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, levels)]
    return "\n".join(lines) + "\n"


def test_an_alias_repeats_a_value(tmp_path: Path) -> None:
    document = read_yaml(write(tmp_path, f"model: &m {MODEL}\nother: {{<<: *m, dim: 64}}"))
    assert document["other"] == {**document["model"], "dim": 64}


@pytest.mark.parametrize(
    "text",
    [
        bomb(9),
        bomb(9) + "model: {module_type: *a8}",
        bomb(9, "!!python/tuple ") + "? *a8\n: 1",
        "a: &a {b: *a}",
        "a: &a !!python/tuple [*a]",
        "a: &a {" + ",".join(f"k{i}: 1" for i in range(500)) + "}\nb: {<<: [" + "*a," * 500 + "]}",
        "a: &a " + "x" * 6000 + "\nb: [" + "*a," * 6000 + "]",
    ],
)
def test_aliases_that_multiply_are_refused_before_any_value_exists(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(ModelError, match="its aliases stand for too many values"):
        read_yaml(write(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "? !!python/tuple [[1]]\n: 1",
        "? [1]\n: 1",
        "a: !!int ''",
        "a: !!bool x",
        "a: !!timestamp x",
        "a: 1" + ":1" * 9_000 + ".5",
        "a: " + "1" * 5000,
        "a: 1\n---\nb: 2",
        "a: \0",
        "[" * 9_000,
        "a: " + "x" * MAX_BYTES,
    ],
)
def test_values_that_yaml_cannot_create_are_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelError, match="config must be") as caught:
        read_yaml(write(tmp_path, text))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        bomb(5) + "model: {module_type: *a4}",
        "model: {module_type: 0x" + "f" * 30_000 + "}",
        f"model: {MODEL}\ntraining: {{target_instrument: [1]}}",
        f"model: {MODEL}\ntraining: {{instruments: {{a: 1}}, target_instrument: 2001-01-01}}",
        f"model: {MODEL[:-1]}, freqs_per_bands: [1024.5, 0.5]}}",
        f"model: {MODEL[:-1]}, freqs_per_bands: [{'1, ' * 1025}]}}",
        f"model: {MODEL[:-1]}, freqs_per_bands: 5}}",
        f"model: {MODEL[:-1]}, num_stems: x}}",
        f"model: {MODEL}\naudio: {{chunk_size: 0x{'f' * 9999}}}",
        f"model: {MODEL}\naudio: {{chunk_size: .nan}}",
        f"model: {MODEL}\naudio: [1]",
    ],
)
def test_values_that_no_network_has_are_one_short_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelError) as caught:
        Config.from_msst(read_yaml(write(tmp_path, text)))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these")
def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(ModelError, match="it is a (named pipe|device), not a file"):
            read_yaml(tmp_path / f"{name}.yaml")
