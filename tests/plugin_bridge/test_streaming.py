"""A stream is the whole signal in parts: its output does not depend on how it is split."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pedalboard
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pedalboard import Chain, Compressor, Delay, Gain, Phaser, PitchShift, Reverb
from pedalboard.io import AudioFile
from pedalboard_native._internal import AddLatency

from bsmamba2 import AudioError, Separator, Stream
from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard import (
    Board,
    Mix,
    Separate,
    SeparationEffect,
    pedalboard_streams,
    plugin_path,
)
from support.engines import StubEngine, half, identity, lower_half_band, restless

EXCLUDED = (
    "Plugin",
    "PluginContainer",
    "Chain",
    "Mix",
    "Pedalboard",
    "Convolution",
    "IIRFilter",
)
NATIVE = [
    plugin
    for name, plugin in inspect.getmembers(pedalboard, inspect.isclass)
    if issubclass(plugin, pedalboard.Plugin)
    and name not in EXCLUDED
    and not issubclass(plugin, (pedalboard.ExternalPlugin, *pedalboard_streams.CANNOT_STREAM))
]
cuts = st.lists(st.sampled_from([0, 1, 2, 63, 64, 65, 500, 9000]), min_size=1, max_size=12)


def parts(audio: Audio, sizes: Sequence[int]) -> Iterator[Audio]:
    """Splits the audio into parts of these sizes, repeated."""
    start, turn = 0, 0
    while start < audio.shape[-1]:
        size = sizes[turn % len(sizes)] if any(sizes) else 1
        yield audio[..., start : start + size]
        start, turn = start + size, turn + 1


def streamed(
    effect: Any, audio: Audio, rate: float = 44100, sizes: Sequence[int] = (100,), **options: Any
) -> Audio:
    effect.reset()
    if audio.ndim == 2:  # because a first part of one or two samples is ambiguous
        effect(np.empty((len(audio), 0), np.float32), rate)
    outputs = [effect(part, rate, reset=False, **options) for part in parts(audio, sizes)]
    return np.concatenate([*outputs, effect.flush()], axis=-1)


def close(output: Audio, expected: npt.NDArray[Any]) -> None:
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


def lists() -> dict[str, Any]:
    """Effects of every kind with the same engine."""
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
def test_output_does_not_depend_on_how_input_is_split(
    kind: Any, sizes: Sequence[int], noise: Callable[..., Audio]
) -> None:
    effect, audio = lists()[kind], noise(2, 400)
    close(streamed(effect, audio, sizes=sizes), effect(audio, 44100))


@pytest.mark.parametrize("kind", lists())
@settings(max_examples=20)
@given(sizes=cuts)
def test_no_stream_is_further_behind_than_its_latency(
    kind: str, sizes: Sequence[int], noise: Callable[..., Audio]
) -> None:
    stream = lists()[kind]._open(44100.0, 2, 8192, None, whole=False)
    received = emitted = 0
    for part in parts(noise(2, 400), sizes):
        received += part.shape[1]
        emitted += stream.push(part).shape[1]
        assert received - emitted <= stream.latency_samples


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 96000, 384000])
@pytest.mark.parametrize("sizes", [[1000], [1, 0, 7001]])
def test_stream_equals_the_whole_signal_at_every_rate(
    noise: Callable[..., Audio], rate: float, sizes: Sequence[int]
) -> None:
    effect, audio = SeparationEffect(StubEngine(restless)), noise(2, 30000)
    close(streamed(effect, audio, rate, sizes), effect(audio, rate))


@pytest.mark.parametrize("rate", [8000, 11025, 32000, 44100, 48000, 96000, 192000, 384000])
@pytest.mark.parametrize("step", [19, 512])
def test_output_is_behind_the_input_by_exactly_the_latency(
    noise: Callable[..., Audio], rate: float, step: int
) -> None:
    effect = SeparationEffect(StubEngine(identity))
    latency, received, emitted = effect.latency_at(rate), 0, 0
    for part in parts(noise(latency + 900), [step]):
        received += len(part)
        emitted += len(effect(part, rate, reset=False))
        assert emitted == max(0, received - latency)


@pytest.mark.parametrize("shape", [(900,), (1, 900), (900, 1), (2, 900), (900, 2)])
def test_parts_keep_their_layout(noise: Callable[..., Audio], shape: tuple[int, ...]) -> None:
    effect, audio = SeparationEffect(StubEngine(half)), noise(*shape)
    time = int(np.argmax(shape))
    split = np.array_split(audio, 4, axis=time)
    outputs = [effect(part, 44100, reset=False) for part in split]
    close(np.concatenate([*outputs, effect.flush()], axis=time), 0.5 * audio)


def test_last_single_stereo_sample_stays_stereo(noise: Callable[..., Audio]) -> None:
    effect, audio = SeparationEffect(StubEngine(half)), noise(2, 301)
    close(streamed(effect, audio, sizes=[300]), 0.5 * audio)


def test_flush_ends_the_stream_and_a_new_one_starts(noise: Callable[..., Audio]) -> None:
    effect, audio = SeparationEffect(StubEngine(restless)), noise(2, 500)
    close(streamed(effect, audio), streamed(effect, audio))
    assert effect.flush().shape == (2, 0)


def test_reset_and_whole_signals_discard_the_stream(noise: Callable[..., Audio]) -> None:
    effect, audio = SeparationEffect(StubEngine(half)), noise(2, 500)
    for forget in (effect.reset, lambda: effect(audio, 44100)):
        effect(audio, 44100, reset=False)
        forget()
        assert effect.flush().shape[1] == 0


@pytest.mark.parametrize(("channels", "rate"), [(2, 48000), (1, 44100)])
def test_stream_refuses_another_rate_or_number_of_channels(
    noise: Callable[..., Audio], channels: int, rate: float
) -> None:
    effect = SeparationEffect(StubEngine(half))
    effect(noise(2, 500), 44100, reset=False)
    with pytest.raises(ValueError, match="must keep its sample_rate and channels, 44100 Hz and 2"):
        effect(noise(channels, 500), rate, reset=False)


def test_an_error_ends_the_stream(noise: Callable[..., Audio]) -> None:
    effect = SeparationEffect(StubEngine(half))
    effect(noise(2, 500), 44100, reset=False)
    with pytest.raises(AudioError, match="must be finite"):
        effect(np.full((2, 9), np.nan), 44100, reset=False)
    assert effect.flush().shape[1] == 0


def test_board_processes_a_file_in_parts(noise: Callable[..., Audio], tmp_path: Path) -> None:
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


def separations(engine: StubEngine | Separator, **options: Any) -> list[SeparationEffect]:
    return [SeparationEffect(engine, stem=stem, **options) for stem in ("vocals", "instrumental")]


@pytest.mark.parametrize("run", [lambda effect, audio: effect(audio, 44100), streamed])
def test_branches_of_a_mix_share_every_run_of_the_model(
    noise: Callable[..., Audio], run: Callable[..., Audio]
) -> None:
    engine = StubEngine(restless)
    separator = Separator(engine)
    singer, band = separations(separator)
    nested = Mix([Board([Board([SeparationEffect(separator)])])])
    run(singer, noise(2, 700))
    alone = len(engine.lengths)
    run(Mix([singer, Board([band, Gain(-6)]), nested]), noise(2, 700))
    assert len(engine.lengths) == 2 * alone


def test_separation_without_another_consumer_is_not_shared() -> None:
    stream = SeparationEffect(StubEngine(half)).open_stream(44100, 2)
    assert isinstance(stream._separation, Stream)


def test_stems_of_one_mix_sum_to_the_input(noise: Callable[..., Audio]) -> None:
    close(
        Mix(separations(Separator(StubEngine(lower_half_band))))(noise(2, 900), 44100),
        noise(2, 900),
    )


def test_separation_after_another_effect_is_not_shared(noise: Callable[..., Audio]) -> None:
    separator = Separator(StubEngine(half))
    singer, band = separations(separator)
    output = Mix([singer, Board([Gain(20), band])])(noise(2, 500), 44100)
    close(output, (0.5 + 5) * noise(2, 500))


def test_separations_with_different_overlaps_are_not_shared(noise: Callable[..., Audio]) -> None:
    engine = StubEngine(half)
    separator = Separator(engine)
    mix = Mix([SeparationEffect(separator, overlap=o) for o in (0, 0.5)])
    close(streamed(mix, noise(2, 500)), noise(2, 500))


# Pedalboard's faults in streaming


def natively(plugin: Any, audio: Audio, sizes: Sequence[int]) -> Audio:
    return np.concatenate(
        [plugin(part, 44100, reset=False) for part in parts(audio, sizes)], axis=1
    )


@pytest.mark.parametrize("plugin", NATIVE, ids=lambda plugin: plugin.__name__)
def test_stream_through_every_native_plugin_equals_the_whole_signal(
    plugin: Any, noise: Callable[..., Audio]
) -> None:
    audio = noise(2, 12000)
    for sizes in ([1, 700, 3, 5000], [11999]):
        close(streamed(Board([plugin()]), audio, sizes=sizes), plugin()(audio, 44100))


def test_larger_block_restarts_a_native_plugin_but_not_a_board(noise: Callable[..., Audio]) -> None:
    audio, sizes = noise(2, 6000), [100, 5900]
    whole = Delay(0.05)(audio, 44100)
    assert np.abs(natively(Delay(0.05), audio, sizes) - whole).max() > 0.1  # the fault
    close(streamed(Board([Delay(0.05)]), audio, sizes=sizes), whole)


def test_native_plugin_with_latency_loses_its_tail_but_a_board_does_not(
    noise: Callable[..., Audio],
) -> None:
    audio = noise(2, 3000)
    assert natively(AddLatency(100), audio, [500]).shape[1] == 2900  # the fault
    close(streamed(Board([AddLatency(100)]), audio, sizes=[500]), audio)


def test_native_mix_with_latency_loses_samples_but_a_board_does_not(
    noise: Callable[..., Audio],
) -> None:
    def mix() -> pedalboard.Mix:
        return pedalboard.Mix([AddLatency(100), Gain(0)])

    audio = noise(2, 3000)
    broken = natively(mix(), audio, [500])
    assert broken.shape[1] < 2900 or np.abs(broken - 2 * audio[:, : broken.shape[1]]).max() > 0.1
    close(streamed(Board([mix()]), audio, sizes=[500]), 2 * audio)


def test_reset_on_the_first_part_inserts_silence_in_a_native_plugin_but_not_in_a_board(
    noise: Callable[..., Audio],
) -> None:
    audio, late, board = noise(2, 1000), AddLatency(100), Board([AddLatency(100)])
    first = late(audio[:, :500], 44100, reset=True)
    second = late(audio[:, 500:], 44100, reset=False)
    assert np.abs(np.concatenate([first, second], axis=1)[:, :900] - audio[:, :900]).max() > 0.1
    outputs = [board(audio[:, :500], 44100), board(audio[:, 500:], 44100, reset=False)]
    close(np.concatenate([*outputs, board.flush()], axis=1), audio)


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: Chain([p]), lambda p: Mix([p])])
@pytest.mark.parametrize("kind", pedalboard_streams.CANNOT_STREAM)
def test_plugin_that_cannot_stream_is_refused_by_name_with_a_fix(
    noise: Callable[..., Audio], wrap: Callable[[Any], Any], kind: Any
) -> None:
    with pytest.raises(ValueError, match=f"True with <pedalboard.{kind.__name__}.*in one call"):
        Board([wrap(kind())])(noise(2, 900), 44100, reset=False)


def test_pitch_shift_on_parts_returns_only_silence(noise: Callable[..., Audio]) -> None:
    assert not np.any(natively(PitchShift(0), noise(2, 44100), [500]))


def test_other_vst3s_stream_through_a_board(
    noise: Callable[..., Audio], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a server the plugin can pass its input through.
    monkeypatch.setenv("BSMAMBA2_SERVE_DIR", str(tmp_path))
    plugin: Any = pedalboard.load_plugin(str(plugin_path()))
    plugin.while_waiting = "Unprocessed"
    for sizes in ([1, 3000], [700]):
        close(streamed(Board([plugin]), noise(2, 5000), sizes=sizes), noise(2, 5000))


class Late:
    """An object with ``process`` and a tail: it returns the input of the previous call."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.previous = np.zeros((2, 0), np.float32)

    def process(
        self, input_array: Audio, sample_rate: float, buffer_size: int = 8192, reset: bool = True
    ) -> Audio:
        if reset:
            return input_array
        previous, self.previous = self.previous, input_array
        return previous

    def flush(self) -> Audio:
        return self.process(np.zeros((2, 0), np.float32), 0, reset=False)


def test_any_object_with_process_streams_and_is_flushed(noise: Callable[..., Audio]) -> None:
    close(streamed(Board([Late(), Gain(0)]), noise(2, 1000)), noise(2, 1000))


def test_repr_of_a_mix_lists_its_plugins() -> None:
    assert re.fullmatch(
        r"<bsmamba2_pedalboard.Mix with 1 plugin: \[.*\] at 0x\w+>", repr(Mix([Gain()]))
    )
