"""Any number of channels through an engine of one or two.

An engine of stereo hears channels in pairs, one that has no partner as a pair of itself, of which
the mean comes back. Which channels are a pair follows the order of WAV, FLAC and FFmpeg:

    2   L R                     5   L R, C, Ls Rs
    3   L R, C                  6   L R, C, LFE, Ls Rs           (5.1)
    4   L R, Ls Rs              8   L R, C, LFE, Lb Rb, Ls Rs    (7.1)

and with any other number they are pairs in order, the last alone where it is odd. An engine of mono
hears channel by channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.errors import AudioError

if TYPE_CHECKING:
    from bsmamba2.audio.array import Audio

MAX_CHANNELS = 64

_SURROUND = {
    5: ((0, 1), (2,), (3, 4)),
    6: ((0, 1), (2,), (3,), (4, 5)),
    8: ((0, 1), (2,), (3,), (4, 5), (6, 7)),
}


def require_channels(channels: int) -> None:
    """Refuses what is no song's number of channels.

    Raises:
        AudioError: channels is not 1 to 64.
    """
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"audio must have 1 to {MAX_CHANNELS} channels; {channels} came: check which axis is "
            "the channels, or mix it down to stereo"
        )


class ChannelGroups:
    """What an engine hears of so many channels: a batch of groups of as many as it takes.

    Args:
        channels: of the audio.
        heard: by the engine at once, 1 or 2.

    Raises:
        AudioError: channels is out of range.
    """

    def __init__(self, channels: int, heard: int) -> None:
        require_channels(channels)
        self.channels = channels
        if heard == 1:
            groups: tuple[tuple[int, ...], ...] = tuple((k,) for k in range(channels))
        else:
            pairs = tuple(tuple(range(channels)[k : k + 2]) for k in range(0, channels, 2))
            groups = _SURROUND.get(channels, pairs)
        self._heard = np.array([group * (heard // len(group)) for group in groups])

    def __len__(self) -> int:
        return len(self._heard)

    def split(self, audio: Audio) -> Audio:
        """(channels, …) to (groups, heard, …), a copy."""
        heard: Audio = audio[self._heard]
        return heard

    def join(self, stems: Audio) -> Audio:
        """(groups, stems, heard, …) to (stems, channels, …)."""
        joined = np.empty((stems.shape[1], self.channels, *stems.shape[3:]), np.float32)
        for group, part in zip(self._heard, stems, strict=True):
            if len(set(group)) == len(group):
                joined[:, group] = part
            else:
                joined[:, group[0]] = part.mean(axis=1, dtype=np.float32)
        return joined
