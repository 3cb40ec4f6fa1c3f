"""The names of the files in a folder, and the samples of audio files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from bsmamba2.audio.array import Exact
from bsmamba2.files.song_file import SongFile


def integers(path: Path) -> npt.NDArray[np.int64]:
    """Returns samples as 32-bit integers, in 64 bits so that sums do not overflow."""
    samples: npt.NDArray[np.int32] = soundfile.read(path, dtype="int32", always_2d=True)[0]
    return samples.astype(np.int64)


def floats(path: Path) -> npt.NDArray[np.float64]:
    """Returns samples as floats."""
    samples: npt.NDArray[np.float64] = soundfile.read(path, always_2d=True)[0]
    return samples


def names(folder: Path) -> list[str]:
    """Returns the names of all files in a folder, including hidden ones."""
    return sorted(path.name for path in folder.iterdir())


def read_song(path: Path) -> Exact:
    """Returns the samples, (channels, samples), as bsmamba2 reads them."""
    with SongFile(path) as song:
        return np.concatenate(list(song.blocks()), axis=1)
