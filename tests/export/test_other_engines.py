"""The code on the page about other engines runs there, and agrees with ONNX Runtime."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import describe_snr, snr_db
from bsmamba2.models.check import check_input
from bsmamba2_export.exporter import ALIASES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/other-engines.md").read_text(encoding="utf-8")
PACKAGES = ROOT / "build/node/node_modules"
INSTALL = "npm install --prefix build/node --ignore-scripts onnxruntime-node onnxruntime-web"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(exported: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the page exports, and with the packages of Node."""
    for line in "".join(blocks("bash")).splitlines():
        if line.startswith("bsmamba2 export"):
            words = shlex.split(line)
            options = dict(zip(words[3::2], words[4::2], strict=True))
            target = options.get("--target", "portable")
            model = exported(ALIASES.get(target, target), options["--io"])
            shutil.copy(model, tmp_path / options["-o"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reference(path: Path, audio: Audio) -> Audio:
    """The stems from ONNX Runtime without our kernels."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    stems: Audio = session.run(None, {"waveform": audio[np.newaxis]})[0][0]
    return stems


def agreement_db(expected: Audio, stems: Audio) -> float:
    """The SNR in dB, which is printed for the page: ``pytest -rP`` shows it."""
    value_db = snr_db(expected, stems)
    print(describe_snr(value_db))
    return value_db


def test_openvino_runs_the_page_and_agrees(folder: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
    audio = check_input(1, 2, 44100)
    names: dict[str, Any] = {"audio": audio}
    (code,) = blocks("py")
    exec(compile(code, "other-engines.md", "exec"), names)
    assert agreement_db(reference(folder / "vocals-openvino.onnx", audio), names["stems"]) >= 100


@pytest.mark.parametrize("package", ["onnxruntime-node", "onnxruntime-web"])
def test_javascript_runs_the_page_and_agrees(folder: Path, package: str) -> None:
    node = shutil.which("node")
    if node is None or not (PACKAGES / package).is_dir():
        pytest.skip(f"{package} is not installed: {INSTALL}")
    audio = check_input(1, 2, 44100)
    audio.astype("<f4").tofile("audio.f32")
    (code,) = (block for block in blocks("javascript") if f'"{package}"' in block)
    Path("page.mjs").write_text(
        'import fs from "fs";\n'
        'const audio = new Float32Array(new Uint8Array(fs.readFileSync("audio.f32")).buffer);\n'
        f'{code}\nfs.writeFileSync("stems.f32", new Uint8Array(stems.data.slice().buffer));\n'
    )
    Path("node_modules").symlink_to(PACKAGES)
    subprocess.run([node, "page.mjs"], check=True, timeout=600)
    expected = reference(folder / "vocals-waveform.onnx", audio)
    stems = np.fromfile("stems.f32", "<f4").reshape(expected.shape)
    assert agreement_db(expected, stems) >= 100


def test_the_page_says_in_three_lines_how_each_engine_runs_a_file() -> None:
    for code in (*blocks("py"), *blocks("javascript")):
        assert len(list(filter(None, code.splitlines()))) == 3
    assert len(blocks("javascript")) == 2
