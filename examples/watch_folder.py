"""Watches a folder, e.g. of a DAW's project, and separates the files that appear in it.

    python examples/watch_folder.py ~/Project/Audio --model bs_mamba2_vocals.ckpt

Bounce, record or copy a file into the folder, and its stems appear in ``stems/`` below it, each
only when it is complete. Where songs have the same name, such as a.flac and a.mp3, the stems of
each have a folder of their own, such as ``stems/a.flac/``. Stop with Ctrl+C.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import bsmamba2

SUFFIXES = (".wav", ".flac", ".aif", ".aiff", ".mp3", ".ogg")


class FolderWatch:
    """Finds files that have stopped growing.

    Args:
        folder: the folder to watch.
        stems: the folder for the stems.
        outputs: names of the stems, as they appear in the names of files.
    """

    def __init__(
        self, folder: Path, stems: Path, outputs: Sequence[str] = ("vocals", "instrumental")
    ) -> None:
        self._folder = folder
        self._stems = stems
        self._outputs = outputs
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._done: set[Path] = set()

    def poll(self) -> Iterator[Path]:
        """Yields files that have not changed since the last call and have no stems yet."""
        for path in self._songs():
            if path in self._done:
                continue
            try:
                info = path.stat()
            except FileNotFoundError:  # renamed or deleted since it was listed
                continue
            size = (info.st_size, info.st_mtime_ns)
            if self._sizes.get(path) == size:
                self._done.add(path)
                if not self._has_stems(path):
                    yield path
            self._sizes[path] = size

    def stems_of(self, path: Path) -> Path:
        """Returns the folder for a song's stems: its own if another song has the same name."""
        named_alike = [song for song in self._songs() if song.stem == path.stem]
        return self._stems / path.name if len(named_alike) > 1 else self._stems

    def _songs(self) -> list[Path]:
        return sorted(p for p in self._folder.iterdir() if p.suffix.lower() in SUFFIXES)

    def _has_stems(self, path: Path) -> bool:
        folder = self.stems_of(path)
        written = {file.stem for file in folder.iterdir()} if folder.is_dir() else set()
        return all(f"{path.stem}_{stem}" in written for stem in self._outputs)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="name of a model, or path of a checkpoint or an .onnx")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda[:N]")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two scans")
    parser.add_argument("--looks", type=int, help="stop after this many scans")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"folder must be a folder to watch; got {options.folder}")
    try:
        separator = bsmamba2.Separator(options.model, options.device)
        watch = FolderWatch(options.folder, options.folder / "stems", separator.manifest.outputs)
        scans = 0
        while options.looks is None or scans < options.looks:
            for path in watch.poll():
                try:
                    written = separator.separate_file(path, watch.stems_of(path))
                    print(*(str(stem) for stem in written.values()), sep="\n", flush=True)
                except bsmamba2.AudioError as error:
                    print(f"error: {error}", file=sys.stderr)
            time.sleep(options.every)
            scans += 1
    except (bsmamba2.Error, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


if __name__ == "__main__":
    main()
