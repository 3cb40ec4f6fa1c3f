"""Separates live audio with a lookahead of your choice.

    arecord -t raw -f FLOAT_LE -c 2 -r 44100 |
        python examples/live_stream.py --lookahead-ms 500 --model bs_mamba2_vocals.ckpt |
        aplay -t raw -f FLOAT_LE -c 2 -r 44100

Input and output are raw 32-bit floats, channels interleaved. A longer lookahead separates better
and adds latency, which is printed. Without a lookahead the model runs whole chunks, which is best.
"""

from __future__ import annotations

import argparse
import sys
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

try:
    import bsmamba2
    from bsmamba2_pedalboard import SeparationEffect
except ImportError as missing:
    sys.exit(f"error: {missing}")


def run(
    effect: SeparationEffect, source: BinaryIO, sink: BinaryIO, rate: int, channels: int
) -> None:
    """Passes all audio from source through the effect to sink."""
    frame = 4 * channels
    pending = b""

    def put(audio: npt.NDArray[np.float32]) -> None:
        sink.write(audio.T.astype("<f4").tobytes())
        sink.flush()

    # A first part of one or two samples would have an ambiguous layout; this empty one settles it.
    effect.process(np.empty((channels, 0), np.float32), rate, reset=False)
    while block := source.read(1024 * frame):
        pending += block
        whole = len(pending) // frame * frame
        audio = np.frombuffer(pending[:whole], "<f4").reshape(-1, channels).T
        pending = pending[whole:]
        put(effect.process(audio, rate, reset=False))
    put(effect.flush())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="name of a model, or path of a checkpoint or an .onnx")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda[:N]")
    parser.add_argument("--stem", default="vocals")
    parser.add_argument("--lookahead-ms", type=float)
    parser.add_argument("--rate", type=int, default=44100, help="Hz")
    parser.add_argument("--channels", type=int, default=2)
    options = parser.parse_args(arguments)
    try:
        effect = SeparationEffect(
            options.model,
            device=options.device,
            stem=options.stem,
            lookahead_ms=options.lookahead_ms,
        )
        latency = effect.latency_at(options.rate) / options.rate
        print(f"{effect.model} on {effect.device}, latency {latency:.2f} s", file=sys.stderr)
        run(effect, sys.stdin.buffer, sys.stdout.buffer, options.rate, options.channels)
    except bsmamba2.Error as error:
        sys.exit(f"error: {error}")
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)


if __name__ == "__main__":
    main()
