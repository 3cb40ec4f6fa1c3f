"""The effect with a real model: the smallest shipped graph with random weights."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pedalboard import Gain

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2.installation import install_command
from bsmamba2_pedalboard import Board, Separate, SeparationEffect


def test_effect_output_equals_the_separators(tiny: Path, noise: Callable[..., Audio]) -> None:
    audio = noise(2, 22050)
    effect = SeparationEffect(tiny, stem="other", device="cpu")
    expected = Separator(tiny, "cpu")(audio, 44100)["instrumental"]
    np.testing.assert_array_equal(effect(audio, 44100), expected)
    assert (effect.model, effect.device) == ("tiny", "cpu")


def test_pickled_effect_gives_the_same_output(tiny: Path, noise: Callable[..., Audio]) -> None:
    effect = SeparationEffect(str(tiny), device="cpu", gain_db=3)
    twin = pickle.loads(pickle.dumps(effect))
    np.testing.assert_array_equal(twin(noise(5000), 44100), effect(noise(5000), 44100))


def test_four_threads_can_use_one_board(tiny: Path, noise: Callable[..., Audio]) -> None:
    board = Board([Gain(6), SeparationEffect(tiny, device="cpu"), Gain(-6)])
    expected = board(noise(2, 9000), 44100)
    with ThreadPoolExecutor(4) as pool:
        for output in pool.map(lambda _: board(noise(2, 9000), 44100), range(8)):
            np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("lookahead_ms", [100, 250])
def test_effect_with_lookahead_equals_the_separators_stream(
    tiny: Path, noise: Callable[..., Audio], lookahead_ms: float
) -> None:
    audio, effect = noise(2, 30000), SeparationEffect(tiny, lookahead_ms=lookahead_ms)
    stream = Separator(tiny).stream(44100, lookahead_ms=lookahead_ms)
    expected = np.concatenate([stream.push(audio)["vocals"], stream.flush()["vocals"]], axis=1)
    np.testing.assert_array_equal(effect(audio, 44100), expected)
    assert effect.latency_samples == stream.latency_samples < 3 * lookahead_ms * 44.1


def test_new_lookahead_changes_the_native_plugins_latency(
    tiny: Path, noise: Callable[..., Audio]
) -> None:
    plugin = Separate(tiny)
    assert plugin.latency_samples > 88200  # a chunk
    plugin.lookahead_ms = 100
    plugin(noise(2, 9000), 44100)
    assert plugin.reported_latency_samples == plugin.latency_samples < 20000


def test_import_without_pedalboard_reports_how_to_install_it() -> None:
    code = "import sys; sys.modules['pedalboard'] = None; import bsmamba2_pedalboard"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line.startswith("bsmamba2.errors.MissingExtra: bsmamba2_pedalboard needs")
    assert last_line.endswith(install_command("pedalboard"))
