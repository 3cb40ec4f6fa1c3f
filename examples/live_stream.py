"""Live sound through a separation, with a chosen lookahead.

    arecord -t raw -f FLOAT_LE -c 2 -r 44100 |
        python examples/live_stream.py --lookahead-ms 500 --model bs_mamba2_vocals.ckpt |
        aplay -t raw -f FLOAT_LE -c 2 -r 44100

Raw 32-bit floats come in and go out, channels interleaved. A longer lookahead separates better and
comes later; the latency is printed. Without one the model runs whole chunks, the best it can.
"""

from __future__ import annotations

import argparse
import sys
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

import bsmamba2
from bsmamba2_pedalboard import SeparationEffect


def run(
    effect: SeparationEffect, source: BinaryIO, sink: BinaryIO, rate: int, channels: int
) -> None:
    """Everything from source through the effect to sink."""
    frame = 4 * channels
    held = b""

    def put(audio: npt.NDArray[np.float32]) -> None:
        sink.write(audio.T.astype("<f4").tobytes())
        sink.flush()

    # A first part of one or two samples could lie either way: this says which is which.
    effect.process(np.empty((channels, 0), np.float32), rate, reset=False)
    while block := source.read(1024 * frame):
        held += block
        whole = len(held) // frame * frame
        audio = np.frombuffer(held[:whole], "<f4").reshape(-1, channels).T
        held = held[whole:]
        put(effect.process(audio, rate, reset=False))
    put(effect.flush())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a name, or the path of a checkpoint or an .onnx")
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
        print(f"{effect.model} on {effect.device}, {latency:.2f} s behind", file=sys.stderr)
        run(effect, sys.stdin.buffer, sys.stdout.buffer, options.rate, options.channels)
    except bsmamba2.Error as error:
        sys.exit(f"error: {error}")
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)


if __name__ == "__main__":
    main()
