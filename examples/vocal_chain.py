"""Adds compression and reverb to the voice in a song.

    python examples/vocal_chain.py SONG OUTPUT --model bs_mamba2_vocals.ckpt

The song is processed in parts, so it can have any length. Both branches share one run of the model.
"""

from __future__ import annotations

import argparse
import sys

try:
    import bsmamba2  # noqa: I001 - ours first: it says how to install Pedalboard
    from bsmamba2_pedalboard import Board, Mix, SeparationEffect
    from pedalboard import Compressor, HighpassFilter, Reverb
    from pedalboard.io import AudioFile
except ImportError as missing:
    sys.exit(f"error: {missing}")


def vocal_mix(separator: bsmamba2.Separator) -> Mix:
    """The unchanged band, plus the voice with compression and reverb."""
    return Mix(
        [
            SeparationEffect(separator, stem="instrumental"),
            Board(
                [
                    SeparationEffect(separator, stem="vocals"),
                    HighpassFilter(90),
                    Compressor(threshold_db=-20, ratio=4, attack_ms=5, release_ms=120),
                    Reverb(room_size=0.4, wet_level=0.15, dry_level=0.5),
                ]
            ),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song")
    parser.add_argument("output", help="a .wav or .flac")
    parser.add_argument("--model", help="name of a model, or path of a checkpoint or an .onnx")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda[:N]")
    options = parser.parse_args(arguments)
    try:
        with AudioFile(options.song) as song:  # before the model is loaded
            mix = vocal_mix(bsmamba2.Separator(options.model, options.device))
            rate = song.samplerate
            with AudioFile(options.output, "w", rate, song.num_channels, bit_depth=24) as output:
                while song.tell() < song.frames:
                    output.write(mix(song.read(rate), rate, reset=False))
                output.write(mix.flush())
    except (bsmamba2.Error, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
