"""Makes a karaoke track in one chain: without the singer, with a little reverb.

    python examples/karaoke_chain.py SONG OUTPUT --model bs_mamba2_vocals.ckpt

OUTPUT can have any format that Pedalboard writes, e.g. karaoke.wav or karaoke.flac.
"""

from __future__ import annotations

import argparse
import sys

try:
    import bsmamba2  # noqa: I001 - ours first: it says how to install Pedalboard
    from bsmamba2_pedalboard import Board, SeparationEffect
    from pedalboard import Gain, Reverb
    from pedalboard.io import AudioFile
except ImportError as missing:
    sys.exit(f"error: {missing}")


def karaoke_board(separator: bsmamba2.Separator) -> Board:
    """The song with its singer 14 dB quieter, enough to follow the melody."""
    return Board(
        [
            SeparationEffect(separator, stem="instrumental", mix=0.8),
            Reverb(room_size=0.3, wet_level=0.1, dry_level=0.5),  # a dry level of 0.5 is unity gain
            Gain(gain_db=-3),  # headroom for the reverb
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song")
    parser.add_argument("output")
    parser.add_argument("--model", help="name of a model, or path of a checkpoint or an .onnx")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda[:N]")
    options = parser.parse_args(arguments)
    try:
        with AudioFile(options.song) as song:  # before the model is loaded
            audio, rate = song.read(song.frames), song.samplerate
        board = karaoke_board(bsmamba2.Separator(options.model, options.device))
        karaoke = board(audio, rate)
        with AudioFile(options.output, "w", rate, len(karaoke), bit_depth=24) as output:
            output.write(karaoke)
    except (bsmamba2.Error, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
