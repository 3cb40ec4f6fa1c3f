"""Checkpoints in the shipped graphs of their size, and the checks computed for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from bsmamba2 import DeviceError, ModelError
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import CPU, Device
from bsmamba2.engines.protocols import ReducedPrecisionEngine
from bsmamba2.engines.step_engine import StepEngine
from bsmamba2.files.cache import cache_folder
from bsmamba2.files.hashing import file_sha256
from bsmamba2.formats.manifest import Manifest
from bsmamba2.formats.model_settings import ModelSettings
from bsmamba2.models import checkpoint_model, registry
from bsmamba2.models.check import FAST_SNR_DB, SNR_DB, check_input
from bsmamba2.models.checkpoint_model import PRECISIONS, CheckpointModel
from support.models import random_weights, write_checkpoint
from support.published import cached_file, make_published


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "voice.safetensors")


def test_a_checkpoint_runs_whole_chunks_and_streams(path: Path) -> None:
    model = CheckpointModel(path)
    assert model.can_stream
    assert model.chunk_engine(CPU).device == CPU
    assert isinstance(model.step_engine(CPU), StepEngine)
    assert model.graph().manifest == model.manifest


def test_a_lower_precision_rounds_the_products_and_has_a_float32_twin(path: Path) -> None:
    noise = check_input(0, 2, 9000)
    expected = CheckpointModel(path).chunk_engine(CPU).run(noise)
    model = CheckpointModel(path, precision="fp16")
    engine = model.chunk_engine(CPU)
    assert isinstance(engine, ReducedPrecisionEngine)
    assert (model.manifest.precision, model.manifest.io) == ("fp16", "waveform")
    assert 30 < snr_db(expected, engine.run(noise)) < 90
    np.testing.assert_array_equal(engine.in_float32().run(noise), expected)


def test_a_lower_precision_must_reproduce_the_check_less_exactly(path: Path) -> None:
    CheckpointModel(path).add_checks()
    least_db = {}
    for precision in PRECISIONS:
        check = CheckpointModel(path, precision=precision).manifest.check
        assert check is not None
        least_db[precision] = check.snr_db
    assert least_db == {"fp32": SNR_DB, "fp16": FAST_SNR_DB, "bf16": FAST_SNR_DB}
    CheckpointModel(path, precision="fp16").chunk_engine(CPU)  # passes it


def test_what_has_no_lower_precision_says_so(path: Path, tmp_path: Path) -> None:
    model = CheckpointModel(path, precision="bf16")
    with pytest.raises(DeviceError, match="precision must be fp32 or fp16 on a CPU; got 'bf16'"):
        model.chunk_engine(CPU)
    with pytest.raises(ModelError, match="precision must be fp32 with lookahead_ms; got 'bf16'"):
        model.step_engine(CPU)
    with pytest.raises(ModelError, match="precision must be one of fp32, fp16, bf16; got 'int8'"):
        CheckpointModel(path, precision="int8")
    stated = {"stems": ["vocals"], "sample_rate": 44100, "hop": 500, "chunk": 44100}
    other = write_checkpoint(tmp_path / "x.safetensors", config=json.dumps(stated))
    with pytest.raises(ModelError, match="whose hop 500 has no shipped graph in fp16: export it"):
        CheckpointModel(other, precision="fp16")


def test_an_unknown_size_is_refused_when_the_file_is_opened(tmp_path: Path) -> None:
    weights = {name: np.zeros((*values.shape, 2)) for name, values in random_weights().items()}
    path = write_checkpoint(tmp_path / "voice.safetensors", weights)
    with pytest.raises(ModelError, match="voice has a size without a shipped graph"):
        CheckpointModel(path)


def test_a_published_checkpoint_that_was_changed_is_refused(
    cache: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = make_published("voice", f"https://example.org/{path.name}")
    monkeypatch.setattr(registry, "PUBLISHED", (voice,))
    published = cached_file(voice).path
    published.parent.mkdir(parents=True)
    shutil.copy(path, published)
    CheckpointModel(path)
    with pytest.raises(ModelError, match="run bsmamba2 models fetch voice, which downloads it ag"):
        CheckpointModel(published)


def test_settings_come_from_the_yaml_then_the_catalogue_then_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = {"stems": ["vocals"], "sample_rate": 44100, "hop": 500, "chunk": 44100}
    path = write_checkpoint(tmp_path / "x.safetensors", config=json.dumps(stated))
    yaml = tmp_path / "x.yaml"
    yaml.write_text("audio: {chunk_size: 66150, sample_rate: 44100}")
    sha256 = file_sha256(path)
    known = make_published(sha256=sha256, settings=ModelSettings(hop=441, chunk=88200))
    monkeypatch.setattr(registry, "PUBLISHED", (known,))
    model = CheckpointModel(path, yaml)
    assert (model.manifest.hop, model.manifest.chunk) == (441, 66150)
    assert model.origins == {
        "yaml": ("sample_rate", "chunk"),
        "catalogue": ("hop",),
        "file": ("stems",),
    }


def test_what_nobody_states_is_assumed_and_named(path: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file(random_weights(), plain)
    model = CheckpointModel(plain)
    assert model.guesses == model.origins["assumed"] == ("stems", "hop", "chunk")


def test_the_licence_of_a_known_file_is_that_of_the_catalogue(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CheckpointModel(path).manifest.licence == "not stated"
    known = make_published(sha256=file_sha256(path), licence="CC0")
    monkeypatch.setattr(registry, "PUBLISHED", (known,))
    assert CheckpointModel(path).manifest.licence == "CC0"


@pytest.mark.parametrize(
    ("device", "hop", "io"),
    [
        (CPU, 512, "spectrum"),
        (Device("cuda"), 512, "waveform"),
        (Device("cuda"), 500, "spectrum"),  # the graph for audio is for a hop of 512
    ],
)
def test_on_a_card_a_checkpoint_takes_audio_and_on_the_cpu_spectra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device, hop: int, io: str
) -> None:
    loaded: list[tuple[Device, Manifest]] = []

    def mock_engine(
        file: Any, device: Device, weights: Any, manifest: Manifest, **_: object
    ) -> None:
        loaded.append((device, manifest))

    config = {"stems": ["vocals"], "sample_rate": 44100, "hop": hop, "chunk": 44100}
    path = write_checkpoint(tmp_path / "voice.safetensors", config=json.dumps(config))
    monkeypatch.setattr(checkpoint_model, "OrtEngine", mock_engine)
    CheckpointModel(path).chunk_engine(device, verify=False)
    ((used, manifest),) = loaded
    assert (used, manifest.io, manifest.hop) == (device, io, hop)


def test_checks_are_computed_once_for_chunks_and_once_for_streams(path: Path) -> None:
    model = CheckpointModel(path)
    reports: list[str] = []
    assert model.manifest.check is None
    for _ in range(2):
        model.add_checks(reports.append)
    assert reports == ["computing the check for whole chunks", "computing the check for a stream"]
    assert model.manifest.check is not None
    assert len(list((cache_folder() / "checks").iterdir())) == 2


def test_engines_reproduce_the_computed_checks(path: Path) -> None:
    model = CheckpointModel(path)
    model.add_checks()
    model.chunk_engine(CPU)
    model.step_engine(CPU)
    assert len(list((cache_folder() / "verdicts").iterdir())) == 2


def test_a_check_belongs_to_the_content_of_a_checkpoint_and_not_to_its_path(
    path: Path, tmp_path: Path
) -> None:
    CheckpointModel(path).add_checks()
    copy = Path(shutil.copy(path, tmp_path / "copy.safetensors"))
    assert CheckpointModel(copy).manifest.check is not None
    other = write_checkpoint(path, random_weights(seed=1))
    assert CheckpointModel(other).manifest.check is None


def test_checks_for_a_folder_are_computed_even_if_the_cache_has_them(
    path: Path, tmp_path: Path
) -> None:
    model = CheckpointModel(path)
    model.add_checks()
    model.add_checks(folder=tmp_path / "checks")
    assert len(list((tmp_path / "checks").iterdir())) == 2


def test_weights_whose_output_is_not_finite_get_no_check(tmp_path: Path) -> None:
    weights = random_weights()
    weights["final_norm.gamma"] *= np.nan
    model = CheckpointModel(write_checkpoint(tmp_path / "broken.safetensors", weights))
    with pytest.raises(ModelError, match="the output of broken is not finite: download the che"):
        model.add_checks()


def test_a_folder_that_cannot_be_written_is_an_error_with_a_fix(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be written to .*file: make it writable"):
        CheckpointModel(path).add_checks(folder=tmp_path / "file")
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="set BSMAMBA2_CACHE to a writable folder"):
        CheckpointModel(path).add_checks()
