"""Repositories of small models, and servers of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bsmamba2.audio.array import Audio
from bsmamba2_cluster.triton.repository import write_repository
from support.kserve import KServe
from support.models import gain_model, write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the size ``tiny`` with random weights."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors")


@pytest.fixture(scope="session")
def gain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file that halves spectra, in chunks of 64 samples."""
    path = tmp_path_factory.mktemp("gain") / "gain.onnx"
    path.write_bytes(gain_model())
    return path


@pytest.fixture(scope="session")
def repository(checkpoint: Path, gain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with ``tiny``, ``tiny_streaming`` and ``gain``."""
    folder = tmp_path_factory.mktemp("repository")
    write_repository(checkpoint, folder)
    write_repository(gain, folder)
    return folder


@pytest.fixture(scope="session")
def shared_server(repository: Path) -> Iterator[KServe]:
    """A server of the repository, for tests without faults."""
    with KServe(repository) as server:
        yield server


@pytest.fixture(scope="session")
def gain_repository(gain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with ``gain`` alone."""
    folder = tmp_path_factory.mktemp("gain-repository")
    write_repository(gain, folder)
    return folder


@pytest.fixture
def server(gain_repository: Path) -> Iterator[KServe]:
    """A server of ``gain``, for tests with faults."""
    with KServe(gain_repository) as server:
        yield server


@pytest.fixture(scope="session")
def audio() -> Audio:
    """Five seconds of stereo noise at a tenth of full scale."""
    random = np.random.default_rng(0)
    return random.uniform(-0.1, 0.1, (2, 5 * 44100)).astype(np.float32)
