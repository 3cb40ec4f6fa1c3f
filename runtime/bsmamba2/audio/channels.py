"""Runs any number of channels through a mono or stereo engine.

A stereo engine takes channels in pairs. A channel without a partner is duplicated into a pair, and
the mean of the engine's two outputs is its result. Pairs follow the channel order of WAV, FLAC and
FFmpeg:

    2   L R                     5   L R, C, Ls Rs
    3   L R, C                  6   L R, C, LFE, Ls Rs           (5.1)
    4   L R, Ls Rs              8   L R, C, LFE, Lb Rb, Ls Rs    (7.1)

Any other number of channels is paired in order; an odd last channel has no partner. A mono engine
takes one channel at a time.

If one channel of a pair is digitally silent, as in a transfer of one side of a record, the other is
treated as if it had no partner: a network trained on stereo songs rarely knows voices on one side.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.errors import AudioError

if TYPE_CHECKING:
    from bsmamba2.audio.array import Audio

log = logging.getLogger("bsmamba2")

MAX_CHANNELS = 64

_SURROUND = {
    5: ((0, 1), (2,), (3, 4)),
    6: ((0, 1), (2,), (3,), (4, 5)),
    8: ((0, 1), (2,), (3,), (4, 5), (6, 7)),
}


def require_channels(channels: int) -> None:
    """Requires a supported number of channels.

    Raises:
        AudioError: channels is not 1 to 64.
    """
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"audio must have 1 to {MAX_CHANNELS} channels; got {channels}: check which axis "
            "holds the channels, or mix down to stereo"
        )


class ChannelGroups:
    """The channels of a song, in groups of the engine's number of channels.

    Args:
        channels: number of channels of the audio.
        engine_channels: number of input channels of the engine, 1 or 2.

    Raises:
        AudioError: channels is out of range.
    """

    def __init__(self, channels: int, engine_channels: int) -> None:
        require_channels(channels)
        self.channels = channels
        if engine_channels == 1:
            groups: tuple[tuple[int, ...], ...] = tuple((k,) for k in range(channels))
        else:
            pairs = tuple(tuple(range(channels)[k : k + 2]) for k in range(0, channels, 2))
            groups = _SURROUND.get(channels, pairs)
        self._groups = np.array([group * (engine_channels // len(group)) for group in groups])

    def __len__(self) -> int:
        return len(self._groups)

    def split(self, audio: Audio) -> Audio:
        """Copies (channels, …) into (groups, engine_channels, …)."""
        groups: Audio = audio[self._groups]
        return groups

    def join(self, stems: Audio) -> Audio:
        """Copies (groups, stems, engine_channels, …) back into (stems, channels, …)."""
        joined = np.empty((stems.shape[1], self.channels, *stems.shape[3:]), np.float32)
        for group, part in zip(self._groups, stems, strict=True):
            if len(set(group)) == len(group):
                joined[:, group] = part
            else:
                joined[:, group[0]] = part.mean(axis=1, dtype=np.float32)
        return joined


class OneSided:
    """Runs pairs of channels of which one is silent as mono; says so once.

    Args:
        sample_rate: Hz, of the positions in the message.
    """

    def __init__(self, sample_rate: float) -> None:
        self._sample_rate = sample_rate
        self._has_said_so = False

    def silent_channel(self, pair: Audio, position: int) -> int | None:
        """Returns the index of the only silent channel of a pair; None if there is none.

        Args:
            pair: (2, …); other numbers of channels have no silent partner.
            position: where it starts, samples, for the message.
        """
        silent = [not channel.any() for channel in pair]
        if len(silent) != 2 or sum(silent) != 1:
            return None
        if not self._has_said_so:
            log.warning(
                "one channel is silent from %.1f s on: the other is separated as mono there",
                position / self._sample_rate,
            )
            self._has_said_so = True
        return silent.index(True)

    @staticmethod
    def doubled(pair: Audio, silent: int) -> Audio:
        """Replaces the silent channel of (2, …) by the other."""
        return np.stack([pair[1 - silent]] * 2)

    @staticmethod
    def undoubled(stems: Audio, silent: int) -> Audio:
        """Returns the stems (stems, 2, …) of a doubled pair with the silent channel as it was."""
        restored = np.zeros_like(stems)
        restored[:, 1 - silent] = stems.mean(axis=1, dtype=np.float32)
        return restored
