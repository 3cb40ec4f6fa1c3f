"""At the paper's size: every form agrees with the network on a second of audio."""

from __future__ import annotations

import pytest
import torch

from bsmamba2.check import check_input, snr_db
from bsmamba2.onnx_file import read_onnx
from bsmamba2.ort_engine import OrtEngine
from bsmamba2_export import artifact
from bsmamba2_export.exporter import describe
from bsmamba2_export.trace import set_target, trace
from bsmamba2_network import BSMamba2


@pytest.fixture(scope="module")
def paper():
    return BSMamba2.untrained("paper", seed=1)


@pytest.fixture(scope="module")
def second(paper):
    """A second of noise and what the network makes of it."""
    audio = check_input(5, 2, 44100)
    with torch.inference_mode():
        return audio, paper(torch.from_numpy(audio)[None])[0].numpy()


@pytest.mark.parametrize("io", ["spectrum", "waveform"])
def test_both_targets_agree_with_the_network_to_90_db(paper, second, tmp_path, io):
    model = trace(paper, io)
    for target in ("portable", "ort"):
        set_target(model, target)
        artifact.set_manifest(model, describe(paper, "paper", target=target, io=io))
        artifact.write(model, tmp_path / "paper.onnx")
        for kernel in (False, True):
            engine = OrtEngine(read_onnx(tmp_path / "paper.onnx"), "cpu", kernel=kernel)
            assert snr_db(second[1], engine.run(second[0])) >= 90
