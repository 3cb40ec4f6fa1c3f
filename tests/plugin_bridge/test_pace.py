"""The plugin tells a render from live playback, on a simulated clock."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

BLOCK, RATE = 512, 44100
SECONDS = BLOCK / RATE
SOURCE = Path(__file__).parents[1] / "support" / "pace.cpp"
Pace = Callable[..., list[bool]]


@pytest.fixture(scope="module")
def pace(tmp_path_factory: pytest.TempPathFactory) -> Pace:
    """Returns which blocks belong to a render: ``pace(gaps, offline=True, latency=2.0)``."""
    if (compiler := shutil.which("g++") or shutil.which("clang++")) is None:
        pytest.skip("no C++ compiler is installed")
    program = tmp_path_factory.mktemp("pace") / "pace"
    subprocess.run([compiler, "-std=c++17", SOURCE, "-o", program], check=True)

    def run(
        gaps: Iterable[float],
        *,
        offline: bool | Iterable[bool] = False,
        latency: float = 2.0,
        waited: float = 0.0,
        block: int = BLOCK,
    ) -> list[bool]:
        gaps = list(gaps)
        flags = [offline] * len(gaps) if isinstance(offline, bool) else list(offline)
        lines = [f"{RATE} {latency}"]
        lines += [f"{g} {block} {f:d} {waited}" for g, f in zip(gaps, flags, strict=True)]
        result = subprocess.run(
            [program], input="\n".join(lines), capture_output=True, text=True, check=True
        )
        return [line == "1" for line in result.stdout.split()]

    return run


def blocks(seconds: float) -> int:
    return int(seconds / SECONDS)


def playback(seconds: float = 20, jitter: float = 0.5) -> list[float]:
    """The gaps of a live host whose blocks come late by up to ``jitter`` of a block."""
    late = np.random.default_rng(0).uniform(0, jitter, blocks(seconds) + 1)
    return [float(gap) for gap in np.diff(np.arange(blocks(seconds) + 1) + late) * SECONDS]


@pytest.mark.parametrize("jitter", [0, 0.5, 0.95])
def test_live_playback_is_never_a_render(pace: Pace, jitter: float) -> None:
    assert not any(pace(playback(jitter=jitter)))


@pytest.mark.parametrize("burst", [2, 4, 8])
def test_live_playback_in_bursts_is_not_a_render(pace: Pace, burst: int) -> None:
    gaps = ([0.0] * (burst - 1) + [burst * SECONDS]) * blocks(20 / burst)
    assert not any(pace(gaps))


def test_playback_that_stalls_is_not_a_render(pace: Pace) -> None:
    gaps = playback()
    for stalled in range(100, len(gaps), 300):
        gaps[stalled] += 1.0
    assert not any(pace(gaps))


@pytest.mark.parametrize("speed", [2.5, 5, 100, 10_000])
def test_a_render_that_does_not_say_so_is_found_before_its_first_stem_is_due(
    pace: Pace, speed: float
) -> None:
    found = pace([SECONDS / speed] * blocks(20))
    assert found.index(True) < blocks(2.0)
    assert all(found[blocks(2.0) :])


def test_the_plugins_own_waits_do_not_make_a_render_look_live(pace: Pace) -> None:
    found = pace([SECONDS / 100] * blocks(20), waited=SECONDS)
    assert all(found[blocks(2.0) :])


def test_a_long_block_is_a_render(pace: Pace) -> None:
    assert all(pace([1.0] * 10, block=30_000))


@pytest.mark.parametrize("slowest", [0.3, 1.0, 3.0])
def test_every_block_of_a_render_that_says_so_is_one_at_any_speed(
    pace: Pace, slowest: float
) -> None:
    """Its speed passes through that of playback, as on a busy machine."""
    turns = np.sin(np.linspace(0, 40, blocks(60)))
    gaps = SECONDS / slowest * 10.0 ** (turns - 1)
    assert all(pace(gaps, offline=True))


def test_a_host_that_says_live_at_times_renders_whenever_it_says_so(pace: Pace) -> None:
    flags = [False] * blocks(1) + [True] * blocks(19)
    gaps = playback()[: len(flags)]
    assert all(pace(gaps, offline=flags)[blocks(1) :])


@pytest.mark.parametrize("latency", [0.5, 2.0, 10.0])
def test_playback_that_always_says_offline_is_live_before_the_first_stem_is_due(
    pace: Pace, latency: float
) -> None:
    found = pace(playback(), offline=True, latency=latency)
    assert not any(found[blocks(latency) :])
