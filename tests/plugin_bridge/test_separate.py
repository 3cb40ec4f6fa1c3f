"""Separate inside Pedalboard's own containers, with the library that pip install built."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pedalboard import Chain, Gain, Mix, Pedalboard

import bsmamba2
from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard import Board, Separate, SeparationEffect, python_backend
from support.engines import StubEngine, half, restless

RATES = [8000, 44100, 48000, 192000]
SIZES = [1, 64, 1000, 8192]


def close(output: Audio, expected: npt.NDArray[Any]) -> None:
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


def followed_by_silence(effect: SeparationEffect, audio: Audio, rate: float) -> Audio:
    """Runs the effect like a native container, which continues a signal with silence."""
    silence = np.zeros((len(audio), effect.latency_at(rate) + 99), np.float32)
    return effect(np.concatenate([audio, silence], axis=1), rate)[:, : audio.shape[1]]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("size", SIZES)
def test_native_chain_equals_the_effect(
    noise: Callable[..., Audio], rate: float, size: int
) -> None:
    audio, engine = noise(2, 2000), StubEngine(restless)
    board = Pedalboard([Gain(0), Separate(engine, mix=0.5, gain_db=-6), Gain(0)])
    expected = followed_by_silence(SeparationEffect(engine, mix=0.5, gain_db=-6), audio, rate)
    close(board(audio, rate, size), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_native_mix_is_aligned(noise: Callable[..., Audio], size: int, channels: int) -> None:
    audio, engine = noise(channels, 2000), StubEngine(restless)
    expected = followed_by_silence(SeparationEffect(engine), audio, 44100)
    close(Mix([Separate(engine), Gain(0)])(audio, 44100, size), expected + audio)


@pytest.mark.parametrize("shape", [(500,), (1, 500), (500, 1), (2, 500), (500, 2)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_shapes_and_types_equal_gains(
    noise: Callable[..., Audio], shape: tuple[int, ...], dtype: str
) -> None:
    audio = noise(*shape).astype(dtype)
    output, gained = Separate(StubEngine(half))(audio, 44100), Gain(0)(audio, 44100)
    close(output, 0.5 * audio)
    assert (output.shape, output.dtype) == (gained.shape, gained.dtype)


@pytest.mark.parametrize("size", [3, 500, 3000])
def test_stream_is_delayed_by_its_latency(noise: Callable[..., Audio], size: int) -> None:
    audio, plugin = noise(2, 3000), Separate(StubEngine(half))
    parts = [plugin(audio[:, a : a + size], 44100, reset=False) for a in range(0, 3000, size)]
    close(np.concatenate(parts, axis=1), 0.5 * audio[:, : 3000 - plugin.latency_samples])


def test_latency_is_reported_from_the_first_block(noise: Callable[..., Audio]) -> None:
    # With 512 samples at 44100 Hz Pedalboard probes a plugin when it loads it.
    plugin = Separate(StubEngine(half))
    assert plugin(noise(2, 512), 44100, 512, reset=False).shape[1] == 512 - plugin.latency_samples
    assert plugin.reported_latency_samples == plugin.latency_samples == 64


def test_loading_does_not_run_the_model() -> None:
    engine = StubEngine(half)
    Separate(engine)
    assert engine.lengths == []


def test_it_reaches_a_caller_that_is_handling_another_exception(
    noise: Callable[..., Audio],
) -> None:
    def fail(chunk: Audio) -> Audio:
        raise ZeroDivisionError("in the model")

    failing = Separate(StubEngine(fail))
    try:
        raise KeyError("another")
    except KeyError:
        with pytest.raises(ZeroDivisionError, match="in the model"):
            failing(noise(2, 9000), 44100)


@pytest.mark.parametrize(
    "container", [lambda p: Pedalboard([Gain(), p]), lambda p: Mix([p, Gain()]), lambda p: p]
)
def test_an_exception_in_the_model_reaches_the_caller(
    noise: Callable[..., Audio], container: Callable[[Any], Any]
) -> None:
    error = ZeroDivisionError("in the model")

    def fail(chunk: Audio) -> Audio:
        raise error

    failing, working = Separate(StubEngine(fail)), Separate(StubEngine(half))
    board = container(failing)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as caught:
            board(noise(2, 9000), 44100, 256)
        assert caught.value is error
    assert not python_backend._pending
    close(working(noise(2, 900), 44100), 0.5 * noise(2, 900))


def test_first_of_two_failing_plugins_is_reported(noise: Callable[..., Audio]) -> None:
    def failing(name: str) -> Separate:
        def fail(chunk: Audio) -> Audio:
            raise ValueError(name)

        return Separate(StubEngine(fail))

    with pytest.raises(ValueError, match="first"):
        Pedalboard([failing("first"), failing("second")])(noise(2, 900), 44100)
    assert not python_backend._pending


@pytest.mark.parametrize("rate", [4000, 400000])
def test_unsupported_rate_is_reported_once(noise: Callable[..., Audio], rate: float) -> None:
    plugin = Separate(StubEngine(half))
    with pytest.raises(bsmamba2.AudioError, match="sample_rate must be"):
        plugin(noise(2, 99), rate)
    close(plugin(noise(2, 99), 44100), 0.5 * noise(2, 99))


def test_four_threads_run_separate_boards_concurrently(noise: Callable[..., Audio]) -> None:
    audio = noise(2, 20000)
    boards = [Pedalboard([Gain(0), Separate(StubEngine(restless))]) for _ in range(4)]
    expected = boards[0](audio, 44100)
    with ThreadPoolExecutor(4) as pool:
        for output in pool.map(lambda board: board(audio, 44100, 256), boards * 3):
            close(output, expected)


def test_four_threads_share_one_board(noise: Callable[..., Audio]) -> None:
    board = Pedalboard([Separate(StubEngine(half)), Gain(0)])
    with ThreadPoolExecutor(4) as pool:
        for output in pool.map(lambda _: board(noise(2, 9000), 44100, 512), range(8)):
            close(output, 0.5 * noise(2, 9000))


def test_exception_is_raised_on_the_calling_thread(noise: Callable[..., Audio]) -> None:
    def fail(chunk: Audio) -> Audio:
        raise ValueError("here")

    plugin, caught = Separate(StubEngine(fail)), []

    def run() -> None:
        try:
            plugin(noise(2, 900), 44100)
        except ValueError as error:
            caught.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert caught == ["here"]


def test_a_thousand_deleted_plugins_leave_nothing_behind(engine: Callable[..., StubEngine]) -> None:
    model = engine()
    gc.collect()
    before = python_backend.instances()
    for _ in range(1000):
        Separate(model)
    assert (python_backend.instances(), len(python_backend._slots)) == (before, before)


def test_container_keeps_a_plugin_alive(noise: Callable[..., Audio]) -> None:
    board = Pedalboard([Separate(StubEngine(half))])
    gc.collect()
    close(board(noise(2, 900), 44100), 0.5 * noise(2, 900))
    before = python_backend.instances()
    del board
    assert python_backend.instances() == before - 1


def test_failed_load_on_another_thread_leaves_nothing_behind(
    engine: Callable[..., StubEngine],
) -> None:
    before, refused = len(python_backend._slots), []

    def make() -> None:
        try:
            Separate(engine())
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert "main thread" in refused[0]
    assert len(python_backend._slots) == before


@pytest.mark.parametrize("container", [Pedalboard, Chain, Mix])
def test_native_containers_accept_the_plugin(container: Callable[[Any], Any]) -> None:
    plugin = Separate(StubEngine(half))
    assert container([plugin, Gain()])[0] is plugin


def test_board_runs_the_effect_without_the_native_plugin(noise: Callable[..., Audio]) -> None:
    engine = StubEngine(restless)
    close(
        Board([Separate(engine)])(noise(2, 500), 44100),
        SeparationEffect(engine)(noise(2, 500), 44100),
    )


# Settings


def test_changed_settings_apply_from_the_next_call(noise: Callable[..., Audio]) -> None:
    plugin = Separate(StubEngine(half), gain_db=0)
    plugin.gain_db, plugin.mix, plugin.stem = 20, 0.5, "other"
    assert (plugin.gain_db, plugin.mix, plugin.stem) == (20, 0.5, "instrumental")
    close(plugin(noise(2, 99), 44100), (0.5 + 0.5 * 10 * 0.5) * noise(2, 99))


@pytest.mark.parametrize(
    ("name", "value"), [("mix", 2), ("gain_db", 101), ("stem", "drums"), ("overlap", 1)]
)
def test_value_out_of_range_is_a_value_error_and_changes_nothing(name: str, value: Any) -> None:
    plugin = Separate(StubEngine(half))
    before = getattr(plugin, name)
    with pytest.raises(ValueError, match=f"{name} must be"):
        setattr(plugin, name, value)
    assert getattr(plugin, name) == before


@pytest.mark.parametrize("name", ["model", "device", "latency_samples", "effect"])
def test_model_properties_are_read_only(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(Separate(StubEngine(half)), name, "cpu")


def test_repr_shows_the_settings() -> None:
    plugin = Separate(StubEngine(half), gain_db=-1.5)
    shown = f"<bsmamba2_pedalboard.Separate stem='vocals' gain_db=-1.5 mix=1 at {id(plugin):#x}>"
    assert repr(plugin) == shown
    assert shown in repr(Pedalboard([plugin]))


@pytest.mark.parametrize("form", ["raw_state", "preset_data"])
def test_host_can_save_and_restore_the_settings(form: str) -> None:
    plugin, twin = Separate(StubEngine(half)), Separate(StubEngine(half))
    plugin.stem, plugin.gain_db, plugin.mix, plugin.overlap = "other", float("-inf"), 0.25, 0.5
    setattr(twin, form, getattr(plugin, form))
    for name in ("stem", "gain_db", "mix", "overlap"):
        assert getattr(twin, name) == getattr(plugin, name)


def test_state_of_another_model_is_refused_and_changes_nothing() -> None:
    plugin = Separate(StubEngine(half))
    other = Separate(StubEngine(half, stems=("drums",), residual=None), stem="drums", mix=0.5)
    with pytest.raises(ValueError, match="must be one that a Separate of this model saved"):
        plugin.raw_state = other.raw_state
    assert (plugin.stem, plugin.mix) == ("vocals", 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state[:20],
        lambda state: state.replace(b'"overlap": 0.5', b'"overlap": 7.5'),
        lambda state: state.replace(b'"lookahead_ms"', b'"look_ahead_ms"'),
        lambda state: b"[]",
        lambda state: b"\xff",
    ],
)
def test_damaged_state_is_refused_and_changes_nothing(damage: Callable[[bytes], bytes]) -> None:
    plugin, other = Separate(StubEngine(half)), Separate(StubEngine(half), mix=0.5, overlap=0.5)
    settings, state = plugin.settings, python_backend.get_state(plugin._slot)
    python_backend.set_state(plugin._slot, damage(python_backend.get_state(other._slot)))
    with pytest.raises(ValueError, match="must be one that a Separate of this model saved"):
        plugin._restore()
    assert (plugin.settings, python_backend.get_state(plugin._slot)) == (settings, state)


def test_the_saved_state_keeps_its_format() -> None:
    plugin = Separate(StubEngine(half), gain_db=float("-inf"))
    assert python_backend.get_state(plugin._slot) == (
        b'{"stem": "vocals", "gain_db": -Infinity, "mix": 1.0, "overlap": 0.25, '
        b'"lookahead_ms": null}'
    )


@pytest.mark.parametrize("duplicate", [copy.copy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copy_loads_its_model_again_and_keeps_every_setting(
    opened: list[tuple[str, str]], noise: Callable[..., Audio], duplicate: Callable[[Any], Any]
) -> None:
    original = Separate("half.onnx", stem="other", gain_db=3, mix=0.5, overlap=0.25)
    twin = duplicate(original)
    assert [model for model, _ in opened] == ["half.onnx"] * 2
    assert (twin.stem, twin.gain_db, twin.mix, twin.overlap) == ("instrumental", 3, 0.5, 0.25)
    close(twin(noise(2, 99), 44100), original(noise(2, 99), 44100))


def test_missing_library_error_suggests_a_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_backend, "BUNDLE", "nowhere.vst3")
    with pytest.raises(bsmamba2.MissingExtra, match="put a SeparationEffect into a .*Board"):
        Separate(StubEngine(half))


# Threads that Python did not start


LIVE = """
import sys, time, numpy as np
sys.path.insert(0, {tests!r})
from pedalboard import Chain, Gain
from pedalboard.io import AudioStream
from bsmamba2_pedalboard import Separate
from support.engines import StubEngine, half

plugin = Separate(StubEngine(half))
with AudioStream(
    AudioStream.default_input_device_name, AudioStream.default_output_device_name,
    plugins=Chain([Gain(0), plugin]), sample_rate=44100, buffer_size=256,
):
    time.sleep(0.3)
audio = np.random.default_rng(0).uniform(-.5, .5, (2, 900)).astype("f4")
np.testing.assert_allclose(plugin(audio, 44100), 0.5 * audio, rtol=0, atol=1e-6)
print("closed")
"""


NULL_DEVICE = """
pcm.!default { type null }
ctl.!default { type null }
pcm.null { type null hint { show on description "Null" } }
"""


def run_in_another_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    tests = str(Path(__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", code.format(tests=tests)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )


def test_an_audio_stream_opens_and_closes_without_a_deadlock(tmp_path: Path) -> None:
    config = tmp_path / "asoundrc"
    config.write_text(NULL_DEVICE)
    done = run_in_another_process(LIVE, ALSA_CONFIG_PATH=str(config))
    if "NoneType" in done.stderr:
        pytest.skip("this Pedalboard has no ALSA")
    assert done.stdout.strip() == "closed", done.stderr
    # Printed only if the live thread prepared the plugin before the stream was closed.
    assert done.stderr == "" or "on threads that Python did not start" in done.stderr


ENDS = """
import sys, threading, time
sys.path.insert(0, {tests!r})
import numpy as np
from pedalboard import Pedalboard
from bsmamba2_pedalboard import Separate
from support.engines import StubEngine, half
board = Pedalboard([Separate(StubEngine(half))])
def play():
    while True:
        board(np.zeros((2, 500000), "f4"), 44100, 64, reset=False)
threading.Thread(target=play, daemon=True).start()
time.sleep(0.3)
print("ends")
"""


def test_python_can_exit_while_a_daemon_thread_separates() -> None:
    # Pedalboard may abort the process, as it does with Gain. But the process must not hang, and
    # Python must not kill the thread inside the model.
    done = run_in_another_process(ENDS)
    assert done.stdout.strip() == "ends"
    assert "not rethrown" not in done.stderr
