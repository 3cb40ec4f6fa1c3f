"""Folders of songs, and the files that separations write into them."""

from __future__ import annotations

from pathlib import Path

import soundfile

from support.fixtures import Noise

SONGS = ("b.wav", "a.flac", "two/c.wav")
"""The songs of an album."""


def write_album(root: Path, noise: Noise) -> Path:
    """Writes an album: songs in two folders, hidden files, and a file that is no song."""
    for name in (*SONGS, "two/.hidden.wav", ".trash/d.wav"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, 0.1 * noise(2, 9000).T, 44100)
    (root / "cover.jpg").write_bytes(b"no song")
    return root


def visible(folder: Path) -> list[str]:
    """Returns the paths of all files in a folder, without hidden files and folders."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(p) for p in paths if not any(part.startswith(".") for part in p.parts))


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of all files in a folder that are not hidden."""
    return {path: (folder / path).read_bytes() for path in visible(folder)}
