"""A list of effects, native and ours, that is an effect itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence
from itertools import groupby
from typing import Any, Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from pedalboard import Chain, Plugin

from bsmamba2 import AudioError
from bsmamba2.array import Audio, to_float32
from bsmamba2_pedalboard.contract import ArgumentTypeError, ArgumentValueError, Effect


class Processor(Protocol):
    """Anything with Pedalboard's ``process``; it is given (channels, samples) float32."""

    def process(
        self,
        input_array: npt.NDArray[Any],
        sample_rate: float,
        buffer_size: int = 8192,
        reset: bool = True,
    ) -> npt.NDArray[Any]: ...


Member: TypeAlias = Plugin | Processor


class Board(Effect, MutableSequence[Member]):
    """Effects in series: Pedalboard's list, which also takes what is written in Python.

        board = Board([Compressor(), SeparationEffect(stem="vocals"), Reverb()])
        board.append(Gain(3))
        output = board(audio, sample_rate)

    Neighbouring native plugins run in one native call, those of nested Boards included.

    Args:
        plugins: Pedalboard's plugins, :class:`SeparationEffect`, Boards, or any object with
            Pedalboard's ``process``, which must return the shape that it is given.

    Raises:
        TypeError: a member is none of these.
        ValueError: a member is an instrument, or holds this board.
    """

    def __init__(self, plugins: Iterable[Member] | None = None) -> None:
        self._members = [self._admit(member) for member in plugins or ()]

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> Board: ...
    def __getitem__(self, index: int | slice) -> Member | Board:
        if isinstance(index, slice):
            return Board(self._members[index])
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
        """Forgets which way earlier arrays lay, and resets the members that can be reset."""
        super().reset()
        for member in self._members:
            if hasattr(member, "reset"):
                member.reset()

    def __copy__(self) -> Board:
        return Board(self._members)

    def __repr__(self) -> str:
        plural = "" if len(self) == 1 else "s"
        return (
            f"<bsmamba2_pedalboard.Board with {len(self)} plugin{plural}: {self._members} "
            f"at {id(self):#x}>"
        )

    def _render(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        for is_native, run in groupby(self._leaves(), lambda leaf: isinstance(leaf, Plugin)):
            if is_native:
                audio = _run_natively(list(run), audio, sample_rate, buffer_size)
                continue
            for effect in run:
                if _is_ours(effect):
                    audio = effect._render(audio, sample_rate, buffer_size)
                else:
                    audio = _run_foreign(effect, audio, sample_rate, buffer_size)
        return audio

    def _leaves(self) -> Iterator[Any]:
        for member in self._members:
            if isinstance(member, Board) and _is_ours(member):
                yield from member._leaves()
            else:
                yield member

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
        if isinstance(member, Board) and (member is self or member._holds(self)):
            raise ArgumentValueError(
                "plugins must not hold the board that they are put into, which would run for ever: "
                "give a copy, board[:]"
            )
        return member  # type: ignore[no-any-return]

    def _holds(self, board: Board) -> bool:
        nested = (member for member in self._members if isinstance(member, Board))
        return any(member is board or member._holds(board) for member in nested)


def _is_ours(member: Any) -> bool:
    """Whether ``_render`` does all that the member's ``process`` does."""
    return isinstance(member, Effect) and type(member).process is Effect.process


def _run_natively(
    plugins: list[Plugin], audio: Audio, sample_rate: float, buffer_size: int
) -> Audio:
    # Pedalboard would read two samples of stereo as an error, and one as two of mono. A chain that
    # has seen (channels, 0) knows better; it sees that while it is empty, so nothing else does.
    chain = Chain([])
    chain.process(np.empty((len(audio), 0), np.float32), sample_rate)
    for plugin in plugins:
        chain.append(plugin)
    return chain.process(audio, sample_rate, buffer_size, reset=True)


def _run_foreign(processor: Processor, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
    # A copy, since nothing keeps a stranger from writing to what may be the caller's array.
    output = np.asarray(processor.process(audio.copy(), sample_rate, buffer_size, True))
    if output.shape != audio.shape:
        raise AudioError(
            f"{processor!r} must return the shape that it is given; {audio.shape} went in, "
            f"{output.shape} came: pad or cut its output to the length of its input"
        )
    return to_float32(output)
