"""Watches a folder, e.g. of a DAW's project, and separates the files that appear in it.

    python examples/watch_folder.py ~/Project/Audio --model bs_mamba2_vocals.ckpt

Bounce, record or copy a file into the folder, and its stems appear in ``stems/`` below it, each
only when it is complete. Stop with Ctrl+C.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bsmamba2

SUFFIXES = (".wav", ".flac", ".aif", ".aiff", ".mp3", ".ogg")


class FolderWatch:
    """Finds files that have stopped growing."""

    def __init__(self, folder: Path, stems: Path) -> None:
        self._folder = folder
        self._stems = stems
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._done: set[Path] = set()

    def poll(self) -> Iterator[Path]:
        """Yields files that have not changed since the last call and have no stems yet."""
        for path in sorted(self._folder.iterdir()):
            if path.suffix.lower() not in SUFFIXES or path in self._done:
                continue
            info = path.stat()
            size = (info.st_size, info.st_mtime_ns)
            if self._sizes.get(path) == size:
                self._done.add(path)
                if not any(self._stems.glob(f"{path.stem}_*")):
                    yield path
            self._sizes[path] = size


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="name of a model, or path of a checkpoint or an .onnx")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda[:N]")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two scans")
    parser.add_argument("--looks", type=int, help="stop after this many scans")
    options = parser.parse_args(arguments)
    stems = options.folder / "stems"
    try:
        separator = bsmamba2.Separator(options.model, options.device)
        watch = FolderWatch(options.folder, stems)
        scans = 0
        while options.looks is None or scans < options.looks:
            for path in watch.poll():
                try:
                    written = separator.separate_file(path, stems)
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
