"""Lists of effects, native and ours, that are effects themselves: in series and side by side."""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence
from itertools import groupby
from typing import Any, Self, TypeAlias, overload

import pedalboard
from pedalboard import Plugin

from bsmamba2_pedalboard.contract import Effect
from bsmamba2_pedalboard.errors import ArgumentTypeError, ArgumentValueError
from bsmamba2_pedalboard.native_streams import NativeStream, WholeNativeStream
from bsmamba2_pedalboard.separate import Separate
from bsmamba2_pedalboard.shared_separations import SharedSeparations
from bsmamba2_pedalboard.streams import (
    EffectStream,
    ParallelStream,
    Processor,
    ProcessorStream,
    SeriesStream,
)

Member: TypeAlias = Plugin | Processor


class Members(Effect, MutableSequence[Member]):
    """A list of effects that is an effect itself.

    Args:
        plugins: Pedalboard's plugins, :class:`Separate`, :class:`SeparationEffect`, Boards, Mixes,
            or any object with Pedalboard's ``process``, which must return the shape that it is
            given.

    Raises:
        TypeError: a member is none of these.
        ValueError: a member is an instrument, or holds this list.
    """

    def __init__(self, plugins: Iterable[Member] | None = None) -> None:
        super().__init__()
        self._members = [self._admit(member) for member in plugins or ()]

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Member | Self:
        if isinstance(index, slice):
            return type(self)(self._members[index])
        return self._members[index]

    @overload
    def __setitem__(self, index: int, value: Member) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[Member]) -> None: ...
    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            self._members[index] = [self._admit(member) for member in value]
        else:
            self._members[index] = self._admit(value)

    def __delitem__(self, index: int | slice) -> None:
        del self._members[index]

    def __len__(self) -> int:
        return len(self._members)

    def insert(self, index: int, value: Member) -> None:
        """Puts a plugin before the one at the index, as a list does."""
        self._members.insert(index, self._admit(value))

    def reset(self) -> None:
        """Ends the stream, and resets the members that can be reset."""
        super().reset()
        for member in self._members:
            if hasattr(member, "reset"):
                member.reset()

    def __copy__(self) -> Self:
        return type(self)(self._members)

    def __reduce__(self) -> tuple[type[Self], tuple[list[Member]]]:
        """Copies deeply and pickles by its members: those that are native refuse."""
        return type(self), (self._members,)

    def __repr__(self) -> str:
        plural = "" if len(self) == 1 else "s"
        return (
            f"<bsmamba2_pedalboard.{type(self).__name__} with {len(self)} plugin{plural}: "
            f"{self._members} at {id(self):#x}>"
        )

    def _admit(self, member: Any) -> Member:
        if isinstance(member, type) or not callable(getattr(member, "process", None)):
            mend = f": give {member.__name__}()" if isinstance(member, type) else ""
            raise ArgumentTypeError(
                "plugins must be Pedalboard plugins, SeparationEffects, Boards or objects with "
                f"Pedalboard's process(); {member!r} came{mend}"
            )
        if getattr(member, "is_instrument", False):
            raise ArgumentValueError(
                f"plugins must take audio; {member!r} is an instrument: render it first, and give "
                "its audio to the board"
            )
        if isinstance(member, Members) and (member is self or member._holds(self)):
            raise ArgumentValueError(
                f"plugins must not hold the {type(self).__name__} that they are put into, which "
                "would run for ever: give a copy, board[:]"
            )
        return member  # type: ignore[no-any-return]

    def _holds(self, other: Members) -> bool:
        nested = (member for member in self._members if isinstance(member, Members))
        return any(member is other or member._holds(other) for member in nested)


class Board(Members):
    """Effects in series: Pedalboard's list, which also takes what is written in Python.

        board = Board([Compressor(), SeparationEffect(stem="vocals"), Reverb()])
        board.append(Gain(3))
        output = board(audio, sample_rate)

    Neighbouring native plugins run in one native call, those of nested Boards included.
    """

    def _open(
        self, rate: float, channels: int, size: int, shared: SharedSeparations, whole: bool
    ) -> EffectStream:
        return _series(_leaves(self, whole), rate, channels, size, shared, whole)


class Mix(Members):
    """Effects side by side, on the same input, summed: Pedalboard's Mix, aligned in streams too.

        karaoke_with_echo = Mix([
            SeparationEffect(separator, stem="instrumental"),
            Board([SeparationEffect(separator, stem="vocals", gain_db=-12), Delay()]),
        ])

    Separations of one Separator at the head of its branches share every run of the model.
    """

    def _open(
        self, rate: float, channels: int, size: int, shared: SharedSeparations, whole: bool
    ) -> EffectStream:
        branches = [
            _series(_leaves([member], whole), rate, channels, size, shared, whole)
            for member in self._members
        ]
        return ParallelStream(branches, channels)


def _leaves(members: Iterable[Any], whole: bool) -> Iterable[Any]:
    """The members with Boards opened; in parts, Pedalboard's own containers are opened as well.

    Its Chain would be no trouble, but its Mix loses what its branches hold back between two calls.
    """
    for member in members:
        if isinstance(member, Separate):
            yield member.effect
        elif isinstance(member, Board) and _is_ours(member):  # noqa: SIM114 - for another reason
            yield from _leaves(member, whole)
        elif isinstance(member, pedalboard.Chain) and not whole:
            yield from _leaves(member, whole)
        elif isinstance(member, pedalboard.Mix) and not whole:
            yield Mix(member)
        else:
            yield member


def _series(
    leaves: Iterable[Any],
    rate: float,
    channels: int,
    size: int,
    shared: SharedSeparations,
    whole: bool,
) -> EffectStream:
    streams: list[EffectStream] = []
    native = WholeNativeStream if whole else NativeStream
    for is_native, run in groupby(leaves, lambda leaf: isinstance(leaf, Plugin)):
        if is_native:
            streams.append(native(list(run), rate, channels, size))
            continue
        for effect in run:
            # What stands behind another effect has an input of its own.
            runs = SharedSeparations() if streams else shared
            if _is_ours(effect):
                streams.append(effect._open(rate, channels, size, runs, whole))
            else:
                streams.append(ProcessorStream(effect, rate, size, whole))
    return SeriesStream(streams, channels)


def _is_ours(member: Any) -> bool:
    """Whether ``_open`` does all that the member's ``process`` does."""
    return isinstance(member, Effect) and type(member).process is Effect.process
