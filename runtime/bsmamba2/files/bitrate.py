"""Bit rates of lossy stems: from kbit/s to the quality that libsndfile asks for.

libsndfile takes a level from 0 (best) to 1 (smallest). For MP3 and Opus it is linear in the bit
rate; for Vorbis it is a quality, and the encoder states the bit rate that it expects from it, so
the level is searched.

Source: libsndfile's mpeg_l3_encode.c, ogg_opus.c and ogg_vorbis.c.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
import soundfile

from bsmamba2.errors import AudioError

_STEPS = 12
_NOMINAL_AT = 20
"""Where a Vorbis stream states its expected bit rate, in its first packet."""


def quality_of(subtype: str, sample_rate: int, channels: int, kbits: float) -> dict[str, Any]:
    """Returns the arguments of ``soundfile.SoundFile`` that give a bit rate.

    Args:
        subtype: libsndfile's name of the sample format.
        sample_rate: Hz.
        channels: number of channels.
        kbits: kbit/s of the whole file.

    Raises:
        AudioError: the format is lossless, or has no such bit rate.
    """
    if subtype == "MPEG_LAYER_III":
        low, high = (32, 320) if sample_rate >= 32000 else (8, 160 if sample_rate >= 16000 else 64)
        _require_between(kbits, low, high, "MP3", sample_rate, channels)
        level = (high - kbits) / (high - low)
        return {"compression_level": level, "bitrate_mode": "CONSTANT"}
    if subtype == "OPUS":
        _require_between(kbits, 6 * channels, 256 * channels, "Opus", sample_rate, channels)
        return {"compression_level": 1 - (kbits / channels - 6) / 250}
    if subtype == "VORBIS":
        low, high = (_nominal_kbits(sample_rate, channels, level) for level in (1.0, 0.0))
        if low >= 1 << 20:  # the encoder states none
            raise AudioError(
                f"bitrate must be None for Vorbis at {sample_rate} Hz; got {kbits:g}: it has none"
            )
        _require_between(kbits, low, high, "Vorbis", sample_rate, channels)
        best, smallest = 0.0, 1.0
        for _ in range(_STEPS):
            level = (best + smallest) / 2
            if _nominal_kbits(sample_rate, channels, level) > kbits:
                best = level
            else:
                smallest = level
        return {"compression_level": smallest}
    raise AudioError(
        f"bitrate must be None for {subtype}; got {kbits:g}: only mp3 and ogg have bit rates"
    )


def _require_between(
    kbits: float, low: float, high: float, name: str, sample_rate: int, channels: int
) -> None:
    if not low <= kbits <= high:
        raise AudioError(
            f"bitrate must be {low:g} to {high:g} kbit/s for {name} at {sample_rate} Hz with "
            f"{channels} channels; got {kbits:g}"
        )


@lru_cache(maxsize=64)
def _nominal_kbits(sample_rate: int, channels: int, level: float) -> int:
    """Returns the bit rate that the Vorbis encoder expects at a level."""
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", sample_rate, channels, "VORBIS", format="OGG", compression_level=level
    ) as writer:
        writer.write(np.zeros((1, channels)))
    packet = file.getvalue().partition(b"\x01vorbis")[2]
    at = _NOMINAL_AT - 7
    return round(int.from_bytes(packet[at : at + 4], "little") / 1000)
