"""The outputs of the stems: aligned, and in sum the delayed input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bsmamba2.audio.array import Audio
from campaigns import stem_buses
from support import vst3_host as host
from support.engines import SIX, half, left_and_right, six_shares
from support.serving import play, serving
from support.vst3_abi import OFFLINE

BUSES = 8
CHUNK = 2048
MODELS: dict[str, tuple[Callable[[Audio], Any], dict[str, Any], int]] = {
    "vocals": (half, {}, 2),
    "six stems": (six_shares, {"stems": SIX, "residual": "residual"}, 7),
    "no residual": (
        lambda chunk: 0.5 * left_and_right(chunk),
        {"stems": ("left", "right"), "residual": None},
        3,
    ),
    "eleven stems": (
        lambda chunk: chunk * np.linspace(0.01, 0.1, 10, dtype=np.float32)[:, None, None],
        {"stems": tuple(f"stem_{number}" for number in range(10)), "residual": "rest"},
        8,
    ),
}


@pytest.fixture(params=MODELS)
def rendering(request: pytest.FixtureRequest, plugin: host.Plugin) -> Iterator[int]:
    """The plugin renders with a model; returns how many outputs its stems have."""
    separate, manifest, buses = MODELS[request.param]
    with serving(separate, chunk=CHUNK, **manifest):
        plugin.start()  # the plugin gets the list of stems
        assert play(plugin, lambda _: plugin.bus_name(buses).strip() not in ("", f"unused {buses}"))
        plugin.start(mode=OFFLINE)
        yield buses


def delayed(audio: Audio, latency: int) -> Audio:
    return np.pad(audio, ((0, 0), (latency, 0)))[:, : audio.shape[1]]


def test_stem_outputs_sum_to_the_delayed_input(
    plugin: host.Plugin, rendering: int, noise: Callable[..., Audio]
) -> None:
    audio = noise(2, 20480)
    for index in range(1, 1 + BUSES):
        plugin.enable(index)
    blocks = [audio[:, start : start + 512] for start in range(0, audio.shape[1], 512)]
    outputs = np.concatenate([plugin.process_buses(b, 1 + BUSES, OFFLINE) for b in blocks], axis=2)
    total = outputs[1:].sum(axis=0)
    np.testing.assert_allclose(total, delayed(audio, plugin.latency), rtol=0, atol=1e-6)
    assert outputs[1 : 1 + rendering].any(axis=(1, 2)).all()
    assert not outputs[1 + rendering :].any()
    np.testing.assert_array_equal(outputs[0], outputs[1])  # the first stem is chosen
    assert plugin.missed == 0


def test_outputs_can_be_enabled_in_any_order_while_the_plugin_runs(
    plugin: host.Plugin, folder: Path
) -> None:
    assert stem_buses.run(plugin, sequences=100, seed=0) < 1e-6


@pytest.mark.parametrize("channels", [1, 2])
def test_one_stem_can_be_taken_without_the_others(
    plugin: host.Plugin, channels: int, noise: Callable[..., Audio]
) -> None:
    plugin.arrange(channels)
    plugin.enable(2)
    with serving():
        latency = plugin.start(mode=OFFLINE, max_samples=20000)
        audio = noise(channels, 20000)
        outputs = plugin.process_buses(audio, 3, OFFLINE)
    np.testing.assert_allclose(outputs[2], 0.5 * delayed(audio, latency), rtol=0, atol=1e-6)
    assert not outputs[1].any()
