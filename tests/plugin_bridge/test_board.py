"""A Board compared with Python's list, and with calling its members one after the other."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pedalboard
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pedalboard import Chain, Compressor, Delay, Gain, Invert, Mix, PitchShift, Reverb
from pedalboard.io import AudioFile
from pedalboard_native._internal import AddLatency

import bsmamba2
from bsmamba2 import AudioError
from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard import Board, SeparationEffect, pedalboard_streams
from support.engines import StubEngine


class Doubler:
    """An object that only has ``process``."""

    def process(
        self, input_array: Audio, sample_rate: float, buffer_size: int = 8192, reset: bool = True
    ) -> Audio:
        input_array *= 2
        return input_array


class Shortener:
    """Breaks the contract: its output is shorter than its input."""

    def process(
        self, input_array: Audio, sample_rate: float, buffer_size: int = 8192, reset: bool = True
    ) -> Audio:
        return input_array[:, 1:]


class Louder(SeparationEffect):
    """A subclass that overrides ``process``."""

    def process(self, *arguments: Any, **named: Any) -> Audio:
        return 10 * super().process(*arguments, **named)


@pytest.fixture
def native_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list of the number of plugins in each native call, in order."""
    calls: list[int] = []

    class CountingChain(Chain):
        def process(
            self,
            input_array: Audio,
            sample_rate: float,
            buffer_size: int = 8192,
            reset: bool = True,
        ) -> Audio:
            if input_array.size:
                calls.append(len(self))
            return super().process(input_array, sample_rate, buffer_size, reset)

    monkeypatch.setattr(pedalboard_streams, "Chain", CountingChain)
    return calls


def call_in_order(members: list[Any], audio: Audio, rate: float) -> Audio:
    for member in members:
        audio = member.process(audio, rate)
    return audio


def close(output: Audio, expected: npt.NDArray[Any]) -> None:
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


# As an effect


@pytest.mark.parametrize("shape", [(999,), (2, 999), (999, 2)])
@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_board_equals_calling_its_members_in_order(
    effect: Callable[..., SeparationEffect],
    noise: Callable[..., Audio],
    shape: tuple[int, ...],
    rate: float,
) -> None:
    def members() -> list[Any]:
        return [Gain(6), effect(0.5), Gain(-6), Reverb(), effect(0.5, stem="other"), Compressor()]

    close(Board(members())(noise(*shape), rate), call_in_order(members(), noise(*shape), rate))


def test_neighbouring_native_plugins_run_in_one_call(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio], native_calls: list[int]
) -> None:
    Board([Gain(), Gain(), effect(), Gain(), Chain([Gain()]), Gain()])(noise(2, 99), 44100)
    assert native_calls == [2, 3]


def test_native_plugins_across_nested_boards_run_in_one_call(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio], native_calls: list[int]
) -> None:
    Board([Gain(), Board([Gain(), effect(), Board([Gain()])]), Gain()])(noise(2, 99), 44100)
    assert native_calls == [2, 2]


def test_board_without_native_plugins_makes_no_native_call(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio], native_calls: list[int]
) -> None:
    Board([effect(), Board(), effect()])(noise(2, 99), 44100)
    assert native_calls == []


@pytest.mark.parametrize("samples", [1, 50, 1000])
def test_the_latency_of_native_plugins_is_compensated(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio], samples: int
) -> None:
    late = Board([AddLatency(30), Invert(), AddLatency(7), effect(0.5), AddLatency(100)])
    close(late(noise(2, samples), 44100), -0.5 * noise(2, samples))


@pytest.mark.parametrize("shape", [(2, 1), (2, 2)])
def test_short_stereo_block_stays_stereo_in_every_member(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio], shape: tuple[int, ...]
) -> None:
    half = Board([Invert(), effect(0.5), Delay(0.5, mix=0), Board([Invert()])])
    half(noise(2, 99), 44100)
    close(half(noise(*shape), 44100), 0.5 * noise(*shape))


def test_each_call_starts_from_silence(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio]
) -> None:
    chain = Board([Reverb(), effect()])
    first = chain(noise(2, 4000), 44100)
    np.testing.assert_array_equal(chain(noise(2, 4000), 44100), first)


def test_native_containers_and_plugins_with_latency_can_be_members(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio]
) -> None:
    chain = Board([Mix([Gain(0), Gain(0)]), effect(0.5), PitchShift(0)])
    assert chain(noise(2, 44100), 44100).shape == (2, 44100)


def test_any_object_with_process_can_be_a_member_and_cannot_change_the_input(
    noise: Callable[..., Audio],
) -> None:
    audio = noise(2, 99)
    close(Board([Doubler(), Gain(0), Doubler()])(audio, 44100), 4 * noise(2, 99))
    np.testing.assert_array_equal(audio, noise(2, 99))


def test_overridden_process_of_a_subclass_is_used(
    engine: Callable[..., StubEngine], noise: Callable[..., Audio]
) -> None:
    close(Board([Louder(engine())])(noise(2, 99), 44100), 10 * noise(2, 99))


def test_error_names_the_effect_that_changes_the_length(noise: Callable[..., Audio]) -> None:
    with pytest.raises(AudioError, match=r"Shortener.* \(2, 99\); got \(2, 98\)"):
        Board([Shortener()])(noise(2, 99), 44100)


def test_an_error_in_a_member_reaches_the_caller(effect: Callable[..., SeparationEffect]) -> None:
    with pytest.raises(AudioError, match="must be finite"):
        Board([Gain(), effect(), Gain()])(np.full((2, 99), np.inf), 44100)


def test_board_processes_audio_from_file_to_file(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio], tmp_path: Path
) -> None:
    with AudioFile(str(tmp_path / "in.wav"), "w", 44100, 2, bit_depth=32) as file:
        file.write(noise(2, 5000))
    with AudioFile(str(tmp_path / "in.wav")) as song:
        halved = Board([Gain(6), effect(0.5), Gain(-6)])(song.read(song.frames), song.samplerate)
    with AudioFile(str(tmp_path / "out.wav"), "w", 44100, 2, bit_depth=32) as file:
        file.write(halved)
    with AudioFile(str(tmp_path / "out.wav")) as written:
        close(written.read(written.frames), 0.5 * noise(2, 5000))


# As a list

MEMBERS: list[Any] = [Gain(1), Reverb(), Doubler(), Board([Gain()]), Compressor()]
members = st.sampled_from(MEMBERS)
places = st.integers(-7, 7)
slices = st.slices(6)
operations = st.one_of(
    st.tuples(st.just("append"), members),
    st.tuples(st.just("insert"), places, members),
    st.tuples(st.just("remove"), members),
    st.tuples(st.just("index"), members),
    st.tuples(st.just("count"), members),
    st.tuples(st.just("pop"), places),
    st.tuples(st.just("extend"), st.lists(members, max_size=3)),
    st.tuples(st.just("reverse")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("__getitem__"), places),
    st.tuples(st.just("__setitem__"), places, members),
    st.tuples(st.just("__setitem__"), slices, st.lists(members, max_size=3)),
    st.tuples(st.just("__delitem__"), st.one_of(places, slices)),
    st.tuples(st.just("__contains__"), members),
)


def result(sequence: Any, name: str, arguments: Any) -> Any:
    try:
        return getattr(sequence, name)(*arguments)
    except (IndexError, ValueError) as error:
        return type(error)


@given(st.lists(members, max_size=5), st.lists(operations, max_size=8))
def test_board_behaves_like_a_list(start: list[Any], steps: list[tuple[Any, ...]]) -> None:
    plain, ours = list(start), Board(start)
    for name, *arguments in steps:
        assert result(ours, name, arguments) == result(plain, name, arguments)
        assert list(ours) == plain
        assert len(ours) == len(plain)


@given(st.lists(members, max_size=5), slices)
def test_a_slice_of_a_board_is_a_board(start: list[Any], part: slice) -> None:
    sliced = Board(start)[part]
    assert isinstance(sliced, Board)
    assert list(sliced) == start[part]


def test_members_keep_their_identity(effect: Callable[..., SeparationEffect]) -> None:
    given_members: list[Any] = [Gain(1), effect(), Reverb()]
    for kept, member in zip(Board(given_members), given_members, strict=True):
        assert kept is member


def test_board_can_be_made_from_a_pedalboard() -> None:
    assert [type(member) for member in Board(pedalboard.Pedalboard([Gain(), Reverb()]))] == [
        Gain,
        Reverb,
    ]


@pytest.mark.parametrize("wrong", [None, 1, "Gain", np.zeros(9), Gain, SeparationEffect, len])
@pytest.mark.parametrize(
    "put",
    [
        lambda board, wrong: Board([wrong]),
        lambda board, wrong: board.append(wrong),
        lambda board, wrong: board.insert(0, wrong),
        lambda board, wrong: board.__setitem__(0, wrong),
        lambda board, wrong: board.__setitem__(slice(0, 1), [Reverb(), wrong]),
    ],
)
def test_non_effect_is_a_type_error_and_is_not_added(
    wrong: Any, put: Callable[[Board, Any], None]
) -> None:
    ours = Board([Gain()])
    with pytest.raises(TypeError, match="Pedalboard plugins, SeparationEffects, Boards or objects"):
        put(ours, wrong)
    assert [type(member) for member in ours] == [Gain]


def test_error_for_a_class_suggests_an_instance() -> None:
    with pytest.raises(TypeError, match=r"got <class .*: give Gain\(\)"):
        Board([Gain])  # type: ignore[list-item]


def test_an_instrument_is_a_value_error_as_in_pedalboard() -> None:
    synthesizer = type("Synthesizer", (Gain,), {"is_instrument": True})()
    with pytest.raises(ValueError, match="is an instrument") as error:
        Board([synthesizer])
    assert isinstance(error.value, bsmamba2.Error)


def test_board_cannot_contain_itself_directly_or_nested() -> None:
    inner = Board()
    outer = Board([Board([inner])])
    for around in (inner, outer):
        with pytest.raises(ValueError, match="would run forever"):
            inner.append(around)
    assert list(inner) == []


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda board: pickle.loads(pickle.dumps(board))]
)
def test_deep_copy_copies_the_members(
    opened: list[tuple[str, str]], noise: Callable[..., Audio], duplicate: Callable[[Any], Any]
) -> None:
    original = Board([SeparationEffect("half.onnx"), Board([SeparationEffect("half.onnx")])])
    twin = duplicate(original)
    assert twin[0] is not original[0]
    np.testing.assert_array_equal(twin(noise(2, 99), 44100), original(noise(2, 99), 44100))


def test_copy_is_an_independent_list_of_the_same_members() -> None:
    original = Board([Gain()])
    for twin in (copy.copy(original), original[:]):
        twin.append(Reverb())
        assert twin[0] is original[0]
    assert len(original) == 1


def test_reset_resets_the_members(
    effect: Callable[..., SeparationEffect], noise: Callable[..., Audio]
) -> None:
    half = effect(0.5)
    half(noise(2, 99), 44100)
    Board([half, Gain(), Doubler()]).reset()
    with pytest.raises(RuntimeError, match="could be"):
        half(noise(2, 2), 44100)


@pytest.mark.parametrize(("number", "words"), [(0, "0 plugins"), (1, "1 plugin"), (2, "2 plugins")])
def test_repr_lists_the_plugins(
    effect: Callable[..., SeparationEffect], number: int, words: str
) -> None:
    members: list[Any] = [Gain(3), effect()]
    chain = Board(members[:number])
    listed = ", ".join(map(repr, chain))
    pattern = rf"<bsmamba2_pedalboard.Board with {words}: \[{re.escape(listed)}\] at 0x\w+>"
    assert re.fullmatch(pattern, repr(chain))
