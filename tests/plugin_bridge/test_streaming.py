"""A stream is the whole signal in parts: the same samples, however it is cut."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pedalboard
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pedalboard import Chain, Compressor, Delay, Gain, Phaser, PitchShift, Reverb
from pedalboard.io import AudioFile
from pedalboard_native._internal import AddLatency

from bsmamba2 import AudioError, Separator
from bsmamba2_pedalboard import Board, Mix, Separate, SeparationEffect, native_streams, plugin_path
from support.engines import StubEngine, half, identity, lower_half_band, restless

NOT_ALONE = ("Plugin", "PluginContainer", "Chain", "Mix", "Pedalboard", "Convolution", "IIRFilter")
NATIVE = [
    plugin
    for name, plugin in inspect.getmembers(pedalboard, inspect.isclass)
    if issubclass(plugin, pedalboard.Plugin)
    and name not in NOT_ALONE
    and not issubclass(plugin, (pedalboard.ExternalPlugin, *native_streams.CANNOT_STREAM))
]
cuts = st.lists(st.sampled_from([0, 1, 2, 63, 64, 65, 500, 9000]), min_size=1, max_size=12)


def parts(audio, sizes):
    """The audio cut into these sizes, over and over."""
    start, turn = 0, 0
    while start < audio.shape[-1]:
        size = sizes[turn % len(sizes)] if any(sizes) else 1
        yield audio[..., start : start + size]
        start, turn = start + size, turn + 1


def streamed(effect, audio, rate=44100, sizes=(100,), **options):
    effect.reset()
    if audio.ndim == 2:  # a first part of one or two samples could lie either way
        effect(np.empty((len(audio), 0), np.float32), rate)
    outputs = [effect(part, rate, reset=False, **options) for part in parts(audio, sizes)]
    return np.concatenate([*outputs, effect.flush()], axis=-1)


def close(output, expected):
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


def lists():
    """Effects of every kind around one engine."""
    engine = StubEngine(restless)
    return {
        "effect": SeparationEffect(engine, mix=0.7, gain_db=-3),
        "Separate": Board([Separate(engine)]),
        "Board": Board([Gain(3), SeparationEffect(engine), Reverb(), Board([Gain(1)])]),
        "Mix": Mix([SeparationEffect(engine), Gain(-6), Board([Phaser(), AddLatency(30)])]),
        "Mix in Mix": Mix([Mix([SeparationEffect(engine)]), Board([Mix([Gain()]), Delay(0.01)])]),
        "native Mix": Board([pedalboard.Mix([AddLatency(70), Gain()]), SeparationEffect(engine)]),
        "native Chain": Board([Chain([Gain(2), pedalboard.Mix([Gain(), AddLatency(9)])])]),
        "empty": Board([Mix()]),
    }


@pytest.mark.parametrize("kind", lists())
@settings(max_examples=20)
@given(sizes=cuts)
def test_a_stream_equals_the_whole_for_every_partition(kind, sizes, noise):
    effect, audio = lists()[kind], noise(2, 400)
    close(streamed(effect, audio, sizes=sizes), effect(audio, 44100))


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 96000, 384000])
@pytest.mark.parametrize("sizes", [[1000], [1, 0, 7001]])
def test_a_stream_equals_the_whole_at_every_rate(noise, rate, sizes):
    effect, audio = SeparationEffect(StubEngine(restless)), noise(2, 30000)
    close(streamed(effect, audio, rate, sizes), effect(audio, rate))


@pytest.mark.parametrize("rate", [8000, 11025, 32000, 44100, 48000, 96000, 192000, 384000])
@pytest.mark.parametrize("step", [19, 512])
def test_the_latency_never_comes_back_short(noise, rate, step):
    effect = SeparationEffect(StubEngine(identity))
    latency, came, went = effect.latency_at(rate), 0, 0
    for part in parts(noise(latency + 900), [step]):
        came += len(part)
        went += len(effect(part, rate, reset=False))
        assert went == max(0, came - latency)


@pytest.mark.parametrize("shape", [(900,), (1, 900), (900, 1), (2, 900), (900, 2)])
def test_parts_keep_their_layout(noise, shape):
    effect, audio = SeparationEffect(StubEngine(half)), noise(*shape)
    time = int(np.argmax(shape))
    cut = np.array_split(audio, 4, axis=time)
    outputs = [effect(part, 44100, reset=False) for part in cut]
    close(np.concatenate([*outputs, effect.flush()], axis=time), 0.5 * audio)


def test_a_last_sample_of_stereo_is_no_mono(noise):
    effect, audio = SeparationEffect(StubEngine(half)), noise(2, 301)
    close(streamed(effect, audio, sizes=[300]), 0.5 * audio)


def test_a_flush_ends_the_stream_and_a_new_one_begins(noise):
    effect, audio = SeparationEffect(StubEngine(restless)), noise(2, 500)
    close(streamed(effect, audio), streamed(effect, audio))
    assert effect.flush().shape == (2, 0)


def test_a_reset_and_a_whole_signal_forget_the_stream(noise):
    effect, audio = SeparationEffect(StubEngine(half)), noise(2, 500)
    for forget in (effect.reset, lambda: effect(audio, 44100)):
        effect(audio, 44100, reset=False)
        forget()
        assert effect.flush().shape[1] == 0


@pytest.mark.parametrize(("channels", "rate"), [(2, 48000), (1, 44100)])
def test_a_stream_keeps_its_rate_and_channels(noise, channels, rate):
    effect = SeparationEffect(StubEngine(half))
    effect(noise(2, 500), 44100, reset=False)
    with pytest.raises(ValueError, match="must keep its sample_rate and channels, 44100 Hz and 2"):
        effect(noise(channels, 500), rate, reset=False)


def test_an_error_ends_the_stream(noise):
    effect = SeparationEffect(StubEngine(half))
    effect(noise(2, 500), 44100, reset=False)
    with pytest.raises(AudioError, match="must be finite"):
        effect(np.full((2, 9), np.nan), 44100, reset=False)
    assert effect.flush().shape[1] == 0


def test_a_file_passes_through_a_board_in_parts(noise, tmp_path):
    board = Board([Gain(6), SeparationEffect(StubEngine(half)), Compressor()])
    with AudioFile(str(tmp_path / "in.wav"), "w", 44100, 2, bit_depth=32) as file:
        file.write(noise(2, 5000))
    with (
        AudioFile(str(tmp_path / "in.wav")) as song,
        AudioFile(str(tmp_path / "out.wav"), "w", 44100, 2, bit_depth=32) as out,
    ):
        while song.tell() < song.frames:
            out.write(board(song.read(1024), 44100, reset=False))
        out.write(board.flush())
    with AudioFile(str(tmp_path / "out.wav")) as file:
        close(file.read(file.frames), board(noise(2, 5000), 44100))


# Runs of the model


def separations(engine, **options):
    return [SeparationEffect(engine, stem=stem, **options) for stem in ("vocals", "instrumental")]


@pytest.mark.parametrize("run", [lambda effect, audio: effect(audio, 44100), streamed])
def test_branches_of_a_mix_share_every_run_of_the_model(noise, run):
    engine = StubEngine(restless)
    separator = Separator(engine)
    singer, band = separations(separator)
    nested = Mix([Board([Board([SeparationEffect(separator)])])])
    run(singer, noise(2, 700))
    alone = len(engine.lengths)
    run(Mix([singer, Board([band, Gain(-6)]), nested]), noise(2, 700))
    assert len(engine.lengths) == 2 * alone


def test_stems_of_one_mix_sum_to_the_input(noise):
    close(
        Mix(separations(Separator(StubEngine(lower_half_band))))(noise(2, 900), 44100),
        noise(2, 900),
    )


def test_what_stands_behind_another_effect_runs_for_itself(noise):
    separator = Separator(StubEngine(half))
    singer, band = separations(separator)
    output = Mix([singer, Board([Gain(20), band])])(noise(2, 500), 44100)
    close(output, (0.5 + 5) * noise(2, 500))


def test_separations_of_other_overlaps_do_not_share(noise):
    engine = StubEngine(half)
    separator = Separator(engine)
    mix = Mix([SeparationEffect(separator, overlap=o) for o in (0, 0.5)])
    close(streamed(mix, noise(2, 500)), noise(2, 500))


# Pedalboard's faults in streams


def natively(plugin, audio, sizes):
    return np.concatenate(
        [plugin(part, 44100, reset=False) for part in parts(audio, sizes)], axis=1
    )


@pytest.mark.parametrize("plugin", NATIVE, ids=lambda plugin: plugin.__name__)
def test_every_native_plugin_streams_as_it_runs_on_the_whole(plugin, noise):
    audio = noise(2, 12000)
    for sizes in ([1, 700, 3, 5000], [11999]):
        close(streamed(Board([plugin()]), audio, sizes=sizes), plugin()(audio, 44100))


def test_a_growing_block_restarts_a_native_plugin_but_no_board(noise):
    audio, sizes = noise(2, 6000), [100, 5900]
    whole = Delay(0.05)(audio, 44100)
    assert np.abs(natively(Delay(0.05), audio, sizes) - whole).max() > 0.1  # the fault
    close(streamed(Board([Delay(0.05)]), audio, sizes=sizes), whole)


def test_a_latent_plugin_keeps_its_tail_but_no_board_does(noise):
    audio = noise(2, 3000)
    assert natively(AddLatency(100), audio, [500]).shape[1] == 2900  # the fault
    close(streamed(Board([AddLatency(100)]), audio, sizes=[500]), audio)


def test_a_native_mix_loses_what_a_latent_branch_holds_back_but_no_board_does(noise):
    def mix():
        return pedalboard.Mix([AddLatency(100), Gain(0)])

    audio = noise(2, 3000)
    broken = natively(mix(), audio, [500])
    assert broken.shape[1] < 2900 or np.abs(broken - 2 * audio[:, : broken.shape[1]]).max() > 0.1
    close(streamed(Board([mix()]), audio, sizes=[500]), 2 * audio)


def test_a_reset_on_the_first_part_alone_inserts_the_latency_but_not_in_a_board(noise):
    audio, late, board = noise(2, 1000), AddLatency(100), Board([AddLatency(100)])
    first = late(audio[:, :500], 44100, reset=True)
    second = late(audio[:, 500:], 44100, reset=False)
    assert np.abs(np.concatenate([first, second], axis=1)[:, :900] - audio[:, :900]).max() > 0.1
    outputs = [board(audio[:, :500], 44100), board(audio[:, 500:], 44100, reset=False)]
    close(np.concatenate([*outputs, board.flush()], axis=1), audio)


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: Chain([p]), lambda p: Mix([p])])
@pytest.mark.parametrize("kind", native_streams.CANNOT_STREAM)
def test_what_pedalboard_cannot_stream_is_refused_by_name_with_its_mend(noise, wrap, kind):
    with pytest.raises(ValueError, match=f"True with <pedalboard.{kind.__name__}.*in one call"):
        Board([wrap(kind())])(noise(2, 900), 44100, reset=False)


def test_a_pitch_shift_on_parts_gives_silence_or_nothing(noise):
    assert not np.any(natively(PitchShift(0), noise(2, 44100), [500]))


def test_other_plugins_in_vst3_form_stream_through_a_board(noise, tmp_path, monkeypatch):
    monkeypatch.setenv("BSMAMBA2_SERVE_DIR", str(tmp_path))  # where no server is: it passes dry
    plugin = pedalboard.load_plugin(str(plugin_path()))
    for sizes in ([1, 3000], [700]):
        close(streamed(Board([plugin]), noise(2, 5000), sizes=sizes), noise(2, 5000))


class Late:
    """Anybody's effect with a tail: what came a call ago."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.held = np.zeros((2, 0), np.float32)

    def process(self, input_array, sample_rate, buffer_size=8192, reset=True):
        if reset:
            return input_array
        held, self.held = self.held, input_array
        return held

    def flush(self):
        return self.process(np.zeros((2, 0), np.float32), 0, reset=False)


def test_anybody_s_effect_streams_and_is_flushed(noise):
    close(streamed(Board([Late(), Gain(0)]), noise(2, 1000)), noise(2, 1000))


def test_a_mix_shows_what_it_is():
    assert re.fullmatch(
        r"<bsmamba2_pedalboard.Mix with 1 plugin: \[.*\] at 0x\w+>", repr(Mix([Gain()]))
    )
