"""Chunks through ONNX Runtime on the CPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bsmamba2 import ModelError
from bsmamba2.devices.device import CPU
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.graph import shipped_graphs
from support.fixtures import Noise, WriteOnnx
from support.models import MANIFEST, gain_model, random_weights


def test_a_chunk_of_any_length_is_separated_and_keeps_its_length(
    write_onnx: WriteOnnx, noise: Noise
) -> None:
    engine = OrtEngine(read_onnx(write_onnx(gain_model())))
    assert (engine.manifest, engine.device) == (MANIFEST, CPU)
    for samples in (1, 16, 64, 333):
        chunk = noise(2, samples)
        stems = engine.run(chunk)
        assert stems.shape == (1, 2, samples)
        np.testing.assert_allclose(stems[0], chunk / 2, rtol=0, atol=1e-6)


def test_a_spectrum_is_passed_to_the_graph_as_it_is(write_onnx: WriteOnnx) -> None:
    spectrum = np.random.default_rng(0).standard_normal((3, 2, 5, 9, 2)).astype(np.float32)
    stems = OrtEngine(read_onnx(write_onnx(gain_model()))).run_spectrum(spectrum)
    np.testing.assert_array_equal(stems, 0.5 * spectrum[:, np.newaxis])


def test_threads_can_share_an_engine(write_onnx: WriteOnnx) -> None:
    engine = OrtEngine(read_onnx(write_onnx(gain_model())))
    chunks = [np.full((2, 64), k, np.float32) for k in range(32)]
    with ThreadPoolExecutor(4) as pool:
        for chunk, stems in zip(chunks, pool.map(engine.run, chunks), strict=True):
            np.testing.assert_allclose(stems[0], chunk / 2, rtol=1e-5)


def test_a_graph_for_streams_is_refused_with_a_fix() -> None:
    graph = next(g for g in shipped_graphs() if g.path.stem == "tiny-streaming")
    with pytest.raises(ModelError, match="takes the steps .*: export it without streaming=True"):
        OrtEngine(graph, CPU, random_weights("tiny-streaming"))


def test_a_failed_run_is_an_error_of_one_line(write_onnx: WriteOnnx) -> None:
    engine = OrtEngine(read_onnx(write_onnx(gain_model())))
    with pytest.raises(ModelError, match="gain failed to run: ") as caught:
        engine.run_spectrum(np.zeros((1, 1, 5, 9, 2), np.float32))
    assert "\n" not in str(caught.value)
