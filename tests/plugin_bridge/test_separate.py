"""Separate inside Pedalboard's own containers, by the library that pip install built."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pedalboard import Chain, Gain, Mix, Pedalboard

import bsmamba2
from bsmamba2_pedalboard import Board, Separate, SeparationEffect, vst3
from support.engines import StubEngine, half, restless

RATES = [8000, 44100, 48000, 192000]
SIZES = [1, 64, 1000, 8192]


def close(output, expected):
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


def beside_silence(effect, audio, rate):
    """What a host makes of a signal whose end it does not tell: it goes on with silence."""
    silence = np.zeros((len(audio), effect.latency_at(rate) + 99), np.float32)
    return effect(np.concatenate([audio, silence], axis=1), rate)[:, : audio.shape[1]]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("size", SIZES)
def test_a_native_chain_equals_the_effect_on_its_own(noise, rate, size):
    audio, engine = noise(2, 2000), StubEngine(restless)
    board = Pedalboard([Gain(0), Separate(engine, mix=0.5, gain_db=-6), Gain(0)])
    expected = beside_silence(SeparationEffect(engine, mix=0.5, gain_db=-6), audio, rate)
    close(board(audio, rate, size), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_native_mix_is_aligned(noise, size, channels):
    audio, engine = noise(channels, 2000), StubEngine(restless)
    expected = beside_silence(SeparationEffect(engine), audio, 44100)
    close(Mix([Separate(engine), Gain(0)])(audio, 44100, size), expected + audio)


@pytest.mark.parametrize("shape", [(500,), (1, 500), (500, 1), (2, 500), (500, 2)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_shapes_and_types_are_a_gain_s(noise, shape, dtype):
    audio = noise(*shape).astype(dtype)
    output, of_gain = Separate(StubEngine(half))(audio, 44100), Gain(0)(audio, 44100)
    close(output, 0.5 * audio)
    assert (output.shape, output.dtype) == (of_gain.shape, of_gain.dtype)


@pytest.mark.parametrize("size", [3, 500, 3000])
def test_its_stream_is_late_by_its_latency(noise, size):
    audio, plugin = noise(2, 3000), Separate(StubEngine(half))
    parts = [plugin(audio[:, a : a + size], 44100, reset=False) for a in range(0, 3000, size)]
    close(np.concatenate(parts, axis=1), 0.5 * audio[:, : 3000 - plugin.latency_samples])


def test_the_latency_is_reported_from_the_first_block_on(noise):
    # 512 samples at 44100 Hz are how Pedalboard probes a plugin as it loads it.
    plugin = Separate(StubEngine(half))
    assert plugin(noise(2, 512), 44100, 512, reset=False).shape[1] == 512 - plugin.latency_samples
    assert plugin.reported_latency_samples == plugin.latency_samples == 64


def test_loading_does_not_run_the_model():
    engine = StubEngine(half)
    Separate(engine)
    assert engine.lengths == []


@pytest.mark.parametrize(
    "container", [lambda p: Pedalboard([Gain(), p]), lambda p: Mix([p, Gain()]), lambda p: p]
)
def test_an_exception_in_the_model_reaches_the_caller(noise, container):
    error = ZeroDivisionError("in the model")

    def fail(chunk):
        raise error

    failing, whole = Separate(StubEngine(fail)), Separate(StubEngine(half))
    board = container(failing)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as caught:
            board(noise(2, 9000), 44100, 256)
        assert caught.value is error
    assert not vst3._pending
    close(whole(noise(2, 900), 44100), 0.5 * noise(2, 900))


def test_of_two_failing_plugins_the_first_is_told(noise):
    def failing(name):
        def fail(chunk):
            raise ValueError(name)

        return Separate(StubEngine(fail))

    with pytest.raises(ValueError, match="first"):
        Pedalboard([failing("first"), failing("second")])(noise(2, 900), 44100)
    assert not vst3._pending


@pytest.mark.parametrize("rate", [4000, 400000])
def test_a_rate_that_cannot_be_separated_is_said_once(noise, rate):
    plugin = Separate(StubEngine(half))
    with pytest.raises(bsmamba2.AudioError, match="sample_rate must be"):
        plugin(noise(2, 99), rate)
    close(plugin(noise(2, 99), 44100), 0.5 * noise(2, 99))


def test_four_threads_run_boards_of_their_own_at_once(noise):
    audio = noise(2, 20000)
    boards = [Pedalboard([Gain(0), Separate(StubEngine(restless))]) for _ in range(4)]
    expected = boards[0](audio, 44100)
    with ThreadPoolExecutor(4) as pool:
        for output in pool.map(lambda board: board(audio, 44100, 256), boards * 3):
            close(output, expected)


def test_four_threads_share_one_board(noise):
    board = Pedalboard([Separate(StubEngine(half)), Gain(0)])
    with ThreadPoolExecutor(4) as pool:
        for output in pool.map(lambda _: board(noise(2, 9000), 44100, 512), range(8)):
            close(output, 0.5 * noise(2, 9000))


def test_an_exception_reaches_the_thread_that_called(noise):
    def fail(chunk):
        raise ValueError("here")

    plugin, caught = Separate(StubEngine(fail)), []

    def run():
        try:
            plugin(noise(2, 900), 44100)
        except ValueError as error:
            caught.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert caught == ["here"]


def test_a_thousand_plugins_made_and_dropped_leave_nothing(engine):
    model = engine()
    gc.collect()
    before = vst3.instances()
    for _ in range(1000):
        Separate(model)
    assert (vst3.instances(), len(vst3._slots)) == (before, before)


def test_a_container_keeps_a_plugin_alive_that_python_has_dropped(noise):
    board = Pedalboard([Separate(StubEngine(half))])
    gc.collect()
    close(board(noise(2, 900), 44100), 0.5 * noise(2, 900))
    before = vst3.instances()
    del board
    assert vst3.instances() == before - 1


def test_what_cannot_be_loaded_off_the_main_thread_leaves_nothing(engine):
    before, refused = len(vst3._slots), []

    def make():
        try:
            Separate(engine())
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert "main thread" in refused[0]
    assert len(vst3._slots) == before


@pytest.mark.parametrize("container", [Pedalboard, Chain, Mix])
def test_native_containers_take_it_as_typed(container):
    plugin = Separate(StubEngine(half))
    assert container([plugin, Gain()])[0] is plugin


def test_a_board_runs_it_without_the_plugin_around_it(noise):
    engine = StubEngine(restless)
    close(
        Board([Separate(engine)])(noise(2, 500), 44100),
        SeparationEffect(engine)(noise(2, 500), 44100),
    )


# Settings


def test_settings_are_the_effect_s_and_hold_from_the_next_call(noise):
    plugin = Separate(StubEngine(half), gain_db=0)
    plugin.gain_db, plugin.mix, plugin.stem = 20, 0.5, "other"
    assert (plugin.gain_db, plugin.mix, plugin.stem) == (20, 0.5, "instrumental")
    close(plugin(noise(2, 99), 44100), (0.5 + 0.5 * 10 * 0.5) * noise(2, 99))


@pytest.mark.parametrize(
    ("name", "value"), [("mix", 2), ("gain_db", 101), ("stem", "drums"), ("overlap", 1)]
)
def test_what_is_out_of_range_is_a_value_error_and_changes_nothing(name, value):
    plugin = Separate(StubEngine(half))
    before = getattr(plugin, name)
    with pytest.raises(ValueError, match=f"{name} must be"):
        setattr(plugin, name, value)
    assert getattr(plugin, name) == before


@pytest.mark.parametrize("name", ["model", "device", "latency_samples", "effect"])
def test_what_belongs_to_the_model_is_read_only(name):
    with pytest.raises(AttributeError):
        setattr(Separate(StubEngine(half)), name, "cpu")


def test_it_shows_what_it_is():
    plugin = Separate(StubEngine(half), gain_db=-1.5)
    shown = f"<bsmamba2_pedalboard.Separate stem='vocals' gain_db=-1.5 mix=1 at {id(plugin):#x}>"
    assert repr(plugin) == shown
    assert shown in repr(Pedalboard([plugin]))


@pytest.mark.parametrize("form", ["raw_state", "preset_data"])
def test_a_host_saves_and_restores_its_settings(form):
    plugin, twin = Separate(StubEngine(half)), Separate(StubEngine(half))
    plugin.stem, plugin.gain_db, plugin.mix, plugin.overlap = "other", float("-inf"), 0.25, 0.5
    setattr(twin, form, getattr(plugin, form))
    for name in ("stem", "gain_db", "mix", "overlap"):
        assert getattr(twin, name) == getattr(plugin, name)


def test_a_state_of_another_model_is_refused_and_changes_nothing():
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
def test_a_damaged_state_is_refused_and_changes_nothing(damage):
    plugin, other = Separate(StubEngine(half)), Separate(StubEngine(half), mix=0.5, overlap=0.5)
    settings, state = plugin.settings, vst3.get_state(plugin._slot)
    vst3.set_state(plugin._slot, damage(vst3.get_state(other._slot)))
    with pytest.raises(ValueError, match="must be one that a Separate of this model saved"):
        plugin._restore()
    assert (plugin.settings, vst3.get_state(plugin._slot)) == (settings, state)


def test_the_saved_state_keeps_its_format():
    plugin = Separate(StubEngine(half), gain_db=float("-inf"))
    assert vst3.get_state(plugin._slot) == (
        b'{"stem": "vocals", "gain_db": -Infinity, "mix": 1.0, "overlap": 0.25, '
        b'"lookahead_ms": null}'
    )


@pytest.mark.parametrize("duplicate", [copy.copy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_loads_its_model_anew_and_keeps_every_setting(opened, noise, duplicate):
    original = Separate("half.onnx", stem="other", gain_db=3, mix=0.5, overlap=0.25)
    twin = duplicate(original)
    assert [model for model, _ in opened] == ["half.onnx"] * 2
    assert (twin.stem, twin.gain_db, twin.mix, twin.overlap) == ("instrumental", 3, 0.5, 0.25)
    close(twin(noise(2, 99), 44100), original(noise(2, 99), 44100))


def test_without_the_library_it_names_the_road_that_needs_none(monkeypatch):
    monkeypatch.setattr(vst3, "BUNDLE", "nowhere.vst3")
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


def in_a_process_of_its_own(code, **environment):
    import os
    from pathlib import Path

    tests = str(Path(__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", code.format(tests=tests)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )


def test_an_audio_stream_opens_and_closes_without_a_deadlock(tmp_path):
    config = tmp_path / "asoundrc"
    config.write_text(NULL_DEVICE)
    done = in_a_process_of_its_own(LIVE, ALSA_CONFIG_PATH=str(config))
    if "NoneType" in done.stderr:
        pytest.skip("this Pedalboard knows no ALSA")
    assert done.stdout.strip() == "closed", done.stderr
    # Said only where the live thread came to prepare the plugin before the stream was closed.
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


def test_python_ends_while_a_daemon_thread_separates():
    # As with Gain in its place, Pedalboard may abort the process then; it must not hang, nor may
    # Python end the thread within the model.
    done = in_a_process_of_its_own(ENDS)
    assert done.stdout.strip() == "ends"
    assert "not rethrown" not in done.stderr
