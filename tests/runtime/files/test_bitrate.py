"""A requested bit rate is the one that the file has."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from bsmamba2 import AudioError, Separator
from bsmamba2.files.bitrate import quality_of
from support.engines import Stubs
from support.fixtures import WriteSong

SECONDS = 4


@pytest.mark.parametrize(
    ("format", "subtype", "rate", "kbits", "tolerance"),
    [
        ("mp3", None, 44100, 128, 0.04),
        ("mp3", None, 44100, 320, 0.04),
        ("mp3", None, 22050, 64, 0.04),
        ("ogg", "opus", 48000, 96, 0.1),
        ("ogg", "opus", 48000, 256, 0.1),
        ("ogg", "vorbis", 44100, 96, 0.25),
        ("ogg", "vorbis", 44100, 256, 0.25),
    ],
)
def test_a_stem_has_the_bit_rate_that_was_asked(
    stub: Stubs,
    song: WriteSong,
    format: str,
    subtype: str | None,
    rate: int,
    kbits: float,
    tolerance: float,
) -> None:
    path = song(rate=rate, samples=SECONDS * rate, gain=0.3)
    out = Separator(stub.half()).separate_file(
        path, format=format, subtype=subtype, bitrate=kbits, stems="vocals"
    )["vocals"]
    assert out.stat().st_size * 8 / SECONDS / 1000 == pytest.approx(kbits, rel=tolerance)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "mp3", "bitrate": 999}, "bitrate must be 32 to 320 kbit/s for MP3 at 44100"),
        ({"format": "mp3", "bitrate": float("nan")}, "bitrate must be 32 to 320"),
        ({"format": "ogg", "bitrate": 1}, "bitrate must be 64 to 500 kbit/s for Vorbis"),
        ({"bitrate": 128}, "bitrate must be None for WAV PCM_16; got 128: only lossy"),
        ({"format": "flac", "bitrate": 128}, "bitrate must be None for FLAC"),
    ],
)
def test_a_bit_rate_that_the_format_lacks_is_refused_while_planning(
    stub: Stubs, song: WriteSong, options: dict[str, object], message: str
) -> None:
    path = song()
    with pytest.raises(AudioError, match=message):
        Separator(stub.half()).separate_file(path, **options)  # type: ignore[arg-type]
    assert list(path.parent.iterdir()) == [path]


def test_vorbis_at_a_rate_without_bit_rates_says_so() -> None:
    with pytest.raises(AudioError, match="must be None for Vorbis at 192000 Hz"):
        quality_of("VORBIS", 192000, 2, 128)


def test_arrays_are_saved_at_a_bit_rate_too(stub: Stubs, song: WriteSong, tmp_path: Path) -> None:
    audio, rate = soundfile.read(song(), dtype="float32")
    stems = Separator(stub.half())(audio, rate)
    small, large = (
        stems.save(tmp_path / str(kbits), format="mp3", bitrate=kbits)["vocals"].stat().st_size
        for kbits in (64, 256)
    )
    assert large == pytest.approx(4 * small, rel=0.1)
