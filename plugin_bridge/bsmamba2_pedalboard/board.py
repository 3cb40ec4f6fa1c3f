"""Lists of native and Python effects, in series or in parallel, that are effects themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence
from itertools import groupby
from typing import Any, Self, TypeAlias, overload

import pedalboard
from pedalboard import Plugin

from bsmamba2_pedalboard.contract import Effect
from bsmamba2_pedalboard.errors import ArgumentTypeError, ArgumentValueError
from bsmamba2_pedalboard.pedalboard_streams import NativeStream, WholeNativeStream
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


class EffectList(Effect, MutableSequence[Member]):
    """A list of effects that is an effect itself.

    Args:
        plugins: Pedalboard's plugins, :class:`Separate`, :class:`SeparationEffect`, Boards, Mixes,
            or any object with Pedalboard's ``process`` that returns an array of its input's shape.

    Raises:
        TypeError: a member is none of these.
        ValueError: a member is an instrument, or contains this list.
    """

    def __init__(self, plugins: Iterable[Member] | None = None) -> None:
        super().__init__()
        self._members = [self._checked(member) for member in plugins or ()]

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
            self._members[index] = [self._checked(member) for member in value]
        else:
            self._members[index] = self._checked(value)

    def __delitem__(self, index: int | slice) -> None:
        del self._members[index]

    def __len__(self) -> int:
        return len(self._members)

    def insert(self, index: int, value: Member) -> None:
        """Inserts a plugin before the one at the index, as a list does."""
        self._members.insert(index, self._checked(value))

    def reset(self) -> None:
        """Discards the stream, and resets the members that have a ``reset``."""
        super().reset()
        for member in self._members:
            if hasattr(member, "reset"):
                member.reset()

    def __copy__(self) -> Self:
        return type(self)(self._members)

    def __reduce__(self) -> tuple[type[Self], tuple[list[Member]]]:
        """Deep-copies and pickles the members; native plugins cannot be copied or pickled."""
        return type(self), (self._members,)

    def __repr__(self) -> str:
        plural = "" if len(self) == 1 else "s"
        return (
            f"<bsmamba2_pedalboard.{type(self).__name__} with {len(self)} plugin{plural}: "
            f"{self._members} at {id(self):#x}>"
        )

    def _checked(self, member: Any) -> Member:
        if isinstance(member, type) or not callable(getattr(member, "process", None)):
            instance = f"{member.__name__}()" if isinstance(member, type) else "e.g. Gain()"
            raise ArgumentTypeError(
                "plugins must be Pedalboard plugins, SeparationEffects, Boards or objects with "
                f"Pedalboard's process(); got {member!r}: give {instance}"
            )
        if getattr(member, "is_instrument", False):
            raise ArgumentValueError(
                f"plugins must process audio; got {member!r}, which is an instrument: render it "
                "first, and give its audio to the board"
            )
        if isinstance(member, EffectList) and (member is self or member._contains(self)):
            raise ArgumentValueError(
                f"plugins must not contain the {type(self).__name__} that they are put into, which "
                f"would run forever; got {type(member).__name__} at {id(member):#x}: give a copy, "
                "board[:]"
            )
        checked: Member = member
        return checked

    def _contains(self, other: EffectList) -> bool:
        nested = (member for member in self._members if isinstance(member, EffectList))
        return any(member is other or member._contains(other) for member in nested)


class Board(EffectList):
    """Effects in series: like Pedalboard's list, but it also takes effects written in Python.

        board = Board([Compressor(), SeparationEffect(stem="vocals"), Reverb()])
        board.append(Gain(3))
        output = board(audio, sample_rate)

    Neighbouring native plugins run in one native call, also across nested Boards.
    """

    def _open(
        self, rate: float, channels: int, size: int, shared: SharedSeparations | None, whole: bool
    ) -> EffectStream:
        return _open_series(self, rate, channels, size, shared, whole)


class Mix(EffectList):
    """The sum of effects on the same input: like Pedalboard's Mix, but also aligned in streams.

        karaoke_with_echo = Mix([
            SeparationEffect(separator, stem="instrumental"),
            Board([SeparationEffect(separator, stem="vocals", gain_db=-12), Delay()]),
        ])

    Branches that start with separations by one Separator share every run of the model.
    """

    def _open(
        self, rate: float, channels: int, size: int, shared: SharedSeparations | None, whole: bool
    ) -> EffectStream:
        if shared is None and len(self) > 1:
            shared = SharedSeparations()
        branches = [
            _open_series([member], rate, channels, size, shared, whole) for member in self._members
        ]
        return ParallelStream(branches, channels)


def _open_series(
    members: Iterable[Any],
    rate: float,
    channels: int,
    size: int,
    shared: SharedSeparations | None,
    whole: bool,
) -> EffectStream:
    streams: list[EffectStream] = []
    native = WholeNativeStream if whole else NativeStream
    flat = _flattened(members, whole)
    for is_native, run in groupby(flat, lambda member: isinstance(member, Plugin)):
        if is_native:
            streams.append(native(list(run), rate, channels, size))
            continue
        for effect in run:
            if _has_only_our_process(effect):
                # Only the first effect gets the input that the separations are shared for.
                separations = None if streams else shared
                streams.append(effect._open(rate, channels, size, separations, whole))
            else:
                streams.append(ProcessorStream(effect, rate, size, whole))
    return SeriesStream(streams, channels)


def _flattened(members: Iterable[Any], whole: bool) -> Iterator[Any]:
    """Replaces nested Boards with their members; in streams, Pedalboard's own containers too.

    Pedalboard's Mix loses samples between two calls if its branches have a latency. Its Chain
    streams correctly, but may contain a Mix.
    """
    for member in members:
        is_board = isinstance(member, Board) and _has_only_our_process(member)
        is_streamed_chain = isinstance(member, pedalboard.Chain) and not whole
        if isinstance(member, Separate):
            yield member.effect
        elif is_board or is_streamed_chain:
            yield from _flattened(member, whole)
        elif isinstance(member, pedalboard.Mix) and not whole:
            yield Mix(member)
        else:
            yield member


def _has_only_our_process(member: Any) -> bool:
    """Returns whether ``_open`` does everything that the member's ``process`` does."""
    return isinstance(member, Effect) and type(member).process is Effect.process
