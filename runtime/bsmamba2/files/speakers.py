"""Which speaker each channel is for, as WAV, FLAC and Ogg state it.

WAV states a mask of speakers (``dwChannelMask``), and the channels are in the order of its bits.
FLAC and Ogg imply a layout by the number of channels; FLAC has a comment for another mask. Vorbis
and Opus put the centre between left and right and the low frequencies last, which libsndfile leaves
as they are.

Sources: WAVEFORMATEXTENSIBLE, RFC 9639 sections 8.6.2 and 9.1.3, Vorbis I section 4.3.9, RFC 7845
section 5.1.1.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SPEAKERS = (
    "FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR", "TC", "TFL", "TFC", "TFR",
    "TBL", "TBC", "TBR",
)  # fmt: skip
"""FFmpeg's names of the speakers, in the order of the mask's bits."""

IMPLIED_MASKS = {1: 0x4, 2: 0x3, 3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
"""The layouts that FLAC implies, by the number of channels."""

FLAC_COMMENT = "waveformatextensible_channel_mask"

OGG_ORDER = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
"""For each channel in WAV's order, its place in Vorbis and Opus, by the number of channels."""


def mask_of(names: Iterable[str]) -> int | None:
    """Returns the mask of the speakers with these names; None if a name is none or is repeated."""
    mask = 0
    for name in names:
        bit = 1 << SPEAKERS.index(name) if name in SPEAKERS else 0
        if not bit or mask & bit:
            return None
        mask |= bit
    return mask


def mask_of_comment(fields: Mapping[str, list[str]]) -> int | None:
    """Returns the mask that a FLAC file states in a comment; None if it states none."""
    try:
        mask = int(fields[FLAC_COMMENT][0], 16)
    except (KeyError, IndexError, ValueError):
        return None
    return mask if 0 <= mask < 1 << 32 else None


def to_wav_order(channels: int) -> list[int]:
    """Returns where each channel in WAV's order is among those of Vorbis or Opus."""
    return list(OGG_ORDER.get(channels, range(channels)))


def to_ogg_order(channels: int) -> list[int]:
    """Returns where each channel of Vorbis or Opus is among those in WAV's order."""
    order = to_wav_order(channels)
    return [order.index(channel) for channel in range(channels)]
