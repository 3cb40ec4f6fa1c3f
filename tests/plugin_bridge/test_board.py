"""A Board as a list beside Python's own, and as an effect beside doing it by hand."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pedalboard
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pedalboard import Chain, Compressor, Delay, Gain, Invert, Mix, PitchShift, Reverb
from pedalboard.io import AudioFile
from pedalboard_native._internal import AddLatency

import bsmamba2
from bsmamba2 import AudioError
from bsmamba2_pedalboard import Board, SeparationEffect, native_streams


class Doubler:
    """Anybody's effect: only ``process``."""

    def process(self, input_array, sample_rate, buffer_size=8192, reset=True):
        input_array *= 2
        return input_array


class Shortener:
    """Breaks the contract."""

    def process(self, input_array, sample_rate, buffer_size=8192, reset=True):
        return input_array[:, 1:]


class Louder(SeparationEffect):
    """Somebody's subclass."""

    def process(self, *arguments, **named):
        return 10 * super().process(*arguments, **named)


@pytest.fixture
def native_calls(monkeypatch):
    """How many plugins ran in each native call, in order."""
    calls = []

    class Counted(Chain):
        def process(self, audio, *arguments, **named):
            if audio.size:
                calls.append(len(self))
            return super().process(audio, *arguments, **named)

    monkeypatch.setattr(native_streams, "Chain", Counted)
    return calls


def by_hand(members, audio, rate):
    for member in members:
        audio = member.process(audio, rate)
    return audio


def close(output, expected):
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


# As an effect


@pytest.mark.parametrize("shape", [(999,), (2, 999), (999, 2)])
@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_a_board_equals_doing_it_by_hand(effect, noise, shape, rate):
    def members():
        return [Gain(6), effect(0.5), Gain(-6), Reverb(), effect(0.5, stem="other"), Compressor()]

    close(Board(members())(noise(*shape), rate), by_hand(members(), noise(*shape), rate))


def test_neighbouring_native_plugins_run_in_one_call(effect, noise, native_calls):
    Board([Gain(), Gain(), effect(), Gain(), Chain([Gain()]), Gain()])(noise(2, 99), 44100)
    assert native_calls == [2, 3]


def test_native_plugins_of_nested_boards_are_neighbours_too(effect, noise, native_calls):
    Board([Gain(), Board([Gain(), effect(), Board([Gain()])]), Gain()])(noise(2, 99), 44100)
    assert native_calls == [2, 2]


def test_nothing_native_runs_where_nothing_is_native(effect, noise, native_calls):
    Board([effect(), Board(), effect()])(noise(2, 99), 44100)
    assert native_calls == []


@pytest.mark.parametrize("samples", [1, 50, 1000])
def test_the_latency_of_native_plugins_is_compensated(effect, noise, samples):
    late = Board([AddLatency(30), Invert(), AddLatency(7), effect(0.5), AddLatency(100)])
    close(late(noise(2, samples), 44100), -0.5 * noise(2, samples))


@pytest.mark.parametrize("shape", [(2, 1), (2, 2)])
def test_no_member_mistakes_a_short_stereo_block(effect, noise, shape):
    half = Board([Invert(), effect(0.5), Delay(0.5, mix=0), Board([Invert()])])
    half(noise(2, 99), 44100)
    close(half(noise(*shape), 44100), 0.5 * noise(*shape))


def test_each_call_starts_from_silence(effect, noise):
    chain = Board([Reverb(), effect()])
    first = chain(noise(2, 4000), 44100)
    np.testing.assert_array_equal(chain(noise(2, 4000), 44100), first)


def test_native_containers_and_latent_plugins_are_members(effect, noise):
    chain = Board([Mix([Gain(0), Gain(0)]), effect(0.5), PitchShift(0)])
    assert chain(noise(2, 44100), 44100).shape == (2, 44100)


def test_anybody_s_effect_is_a_member_and_cannot_harm_the_input(noise):
    audio = noise(2, 99)
    close(Board([Doubler(), Gain(0), Doubler()])(audio, 44100), 4 * noise(2, 99))
    np.testing.assert_array_equal(audio, noise(2, 99))


def test_a_subclass_s_own_process_is_what_runs(engine, noise):
    close(Board([Louder(engine())])(noise(2, 99), 44100), 10 * noise(2, 99))


def test_an_effect_that_changes_the_length_is_named(noise):
    with pytest.raises(AudioError, match=r"Shortener.* \(2, 99\); got \(2, 98\)"):
        Board([Shortener()])(noise(2, 99), 44100)


def test_an_error_in_a_member_reaches_the_caller(effect):
    with pytest.raises(AudioError, match="must be finite"):
        Board([Gain(), effect(), Gain()])(np.full((2, 99), np.inf), 44100)


def test_a_board_sits_between_reading_a_file_and_writing_one(effect, noise, tmp_path):
    with AudioFile(str(tmp_path / "in.wav"), "w", 44100, 2, bit_depth=32) as file:
        file.write(noise(2, 5000))
    with AudioFile(str(tmp_path / "in.wav")) as song:
        halved = Board([Gain(6), effect(0.5), Gain(-6)])(song.read(song.frames), song.samplerate)
    with AudioFile(str(tmp_path / "out.wav"), "w", 44100, 2, bit_depth=32) as file:
        file.write(halved)
    with AudioFile(str(tmp_path / "out.wav")) as written:
        close(written.read(written.frames), 0.5 * noise(2, 5000))


# As a list

MEMBERS = [Gain(1), Reverb(), Doubler(), Board([Gain()]), Compressor()]
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


def result(sequence, name, arguments):
    try:
        return getattr(sequence, name)(*arguments)
    except (IndexError, ValueError) as error:
        return type(error)


@given(st.lists(members, max_size=5), st.lists(operations, max_size=8))
def test_a_board_is_a_list(start, steps):
    plain, ours = list(start), Board(start)
    for name, *arguments in steps:
        assert result(ours, name, arguments) == result(plain, name, arguments)
        assert list(ours) == plain
        assert len(ours) == len(plain)


@given(st.lists(members, max_size=5), slices)
def test_a_slice_of_a_board_is_a_board(start, part):
    sliced = Board(start)[part]
    assert isinstance(sliced, Board)
    assert list(sliced) == start[part]


def test_members_keep_their_identity(effect):
    given_members = [Gain(1), effect(), Reverb()]
    for kept, member in zip(Board(given_members), given_members, strict=True):
        assert kept is member


def test_a_pedalboard_s_plugins_become_a_board_s():
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
def test_what_is_no_effect_is_a_type_error_and_stays_out(wrong, put):
    ours = Board([Gain()])
    with pytest.raises(TypeError, match="Pedalboard plugins, SeparationEffects, Boards or objects"):
        put(ours, wrong)
    assert [type(member) for member in ours] == [Gain]


def test_a_class_in_place_of_an_effect_is_told_so():
    with pytest.raises(TypeError, match=r"got <class .*: give Gain\(\)"):
        Board([Gain])


def test_an_instrument_is_a_value_error_as_in_pedalboard():
    synthesizer = type("Synthesizer", (Gain,), {"is_instrument": True})()
    with pytest.raises(ValueError, match="is an instrument") as error:
        Board([synthesizer])
    assert isinstance(error.value, bsmamba2.Error)


def test_a_board_cannot_hold_itself_by_any_way():
    inner = Board()
    outer = Board([Board([inner])])
    for around in (inner, outer):
        with pytest.raises(ValueError, match="would run forever"):
            inner.append(around)
    assert list(inner) == []


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda board: pickle.loads(pickle.dumps(board))]
)
def test_a_deep_copy_makes_members_of_its_own(opened, noise, duplicate):
    original = Board([SeparationEffect("half.onnx"), Board([SeparationEffect("half.onnx")])])
    twin = duplicate(original)
    assert twin[0] is not original[0]
    np.testing.assert_array_equal(twin(noise(2, 99), 44100), original(noise(2, 99), 44100))


def test_a_copy_is_a_list_of_its_own():
    original = Board([Gain()])
    for twin in (copy.copy(original), original[:]):
        twin.append(Reverb())
        assert twin[0] is original[0]
    assert len(original) == 1


def test_a_reset_reaches_the_members(effect, noise):
    half = effect(0.5)
    half(noise(2, 99), 44100)
    Board([half, Gain(), Doubler()]).reset()
    with pytest.raises(RuntimeError, match="could be"):
        half(noise(2, 2), 44100)


@pytest.mark.parametrize(("number", "words"), [(0, "0 plugins"), (1, "1 plugin"), (2, "2 plugins")])
def test_a_board_shows_its_plugins(effect, number, words):
    chain = Board([Gain(3), effect()][:number])
    listed = ", ".join(map(repr, chain))
    pattern = rf"<bsmamba2_pedalboard.Board with {words}: \[{re.escape(listed)}\] at 0x\w+>"
    assert re.fullmatch(pattern, repr(chain))
