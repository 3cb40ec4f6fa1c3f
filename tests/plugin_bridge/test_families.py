"""Other networks as an effect and in the plugin of a DAW: HT Demucs' drums, a RoFormer's vocals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pedalboard import Gain, Pedalboard

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard import Separate
from bsmamba2_pedalboard.server import Server
from support import vst3_host as host
from support.serving import rendered


def exported(family: str, folder: Path) -> Path:
    """Returns the path of a tiny network with random weights, exported as users do it."""
    pytest.importorskip("onnxscript")
    from bsmamba2_export.exporter import describe, export_network
    from support.small_convnets import small_network
    from support.small_roformers import BS_SMALL, small_roformer

    net = small_roformer(BS_SMALL) if family == "bs_roformer" else small_network(family)
    path = folder / f"{family}.onnx"
    export_network(net, describe(net, family), path)
    return path


@pytest.fixture(scope="module")
def htdemucs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("htdemucs", tmp_path_factory.mktemp("htdemucs"))


@pytest.fixture(scope="module")
def roformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("bs_roformer", tmp_path_factory.mktemp("roformer"))


@pytest.fixture
def served_roformer(
    roformer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Separator]:
    """The separator of a running server."""
    folder = tmp_path / "s"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("BSMAMBA2_SERVE_DIR", str(folder))
    separator = Separator(roformer, device="cpu")
    server = Server(separator, headroom_ms=50)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield separator
    server.stop()
    thread.join()


def separated(separator: Separator, audio: Audio, rate: float, latency: int, stem: str) -> Audio:
    """Returns a stem of the audio; like for a plugin, silence follows it."""
    silence = np.zeros((2, latency), np.float32)
    stems = separator(np.concatenate([audio, silence], axis=1), rate)
    return stems[stem][:, : audio.shape[1]]


def test_htdemucs_plays_its_drums_in_a_native_chain(
    htdemucs: Path, noise: Callable[..., Audio]
) -> None:
    audio, drums = noise(2, 3000), Separate(htdemucs, stem="drums", device="cpu")
    output = Pedalboard([Gain(0), drums, Gain(0)])(audio, 44100)
    separator = Separator(htdemucs, device="cpu")
    expected = separated(separator, audio, 44100, drums.latency_samples, "drums")
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)
    assert np.abs(expected).max() > 1e-3


def test_htdemucs_offers_its_four_stems_to_a_board(htdemucs: Path) -> None:
    with pytest.raises(ValueError, match="drums, bass, other, vocals"):
        Separate(htdemucs, stem="guitar", device="cpu")


@pytest.mark.parametrize("rate", [11025, 44100])
def test_a_roformer_plays_in_the_plugin_of_a_daw(
    served_roformer: Separator, noise: Callable[..., Audio], rate: int
) -> None:
    audio, plugin = noise(2, 5 * rate), host.Plugin(host.bundle())
    output = rendered(plugin, audio, rate)
    latency = plugin.latency
    plugin.close()
    expected = separated(served_roformer, audio, rate, latency, "vocals")
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)
    assert np.abs(expected).max() > 1e-3
