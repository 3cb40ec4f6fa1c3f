"""Separates a song and plots its spectrograms before and after.

    python examples/before_after.py SONG FOLDER [-m MODEL]

It writes SONG_vocals.flac, SONG_instrumental.flac and spectrograms.png to FOLDER. It needs the
extra cpu and matplotlib.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt

import bsmamba2


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-m", "--model", help="default: the shipped model")
    parser.add_argument(
        "--seconds", type=float, nargs=2, default=(0, 30), help="first and last second of the plot"
    )
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("matplotlib") is None:
        parser.exit(2, "error: matplotlib is not installed; run: pip install matplotlib\n")
    try:
        stems = bsmamba2.separate(options.song, model=options.model)
        stems.save(options.folder, overwrite=True)
    except bsmamba2.Error as error:
        parser.exit(2, f"error: {error}\n")
    # The stems sum to the song.
    song = np.sum([stems[name] for name in stems], axis=0)
    first, last = options.seconds[0], min(options.seconds[1], song.shape[1] / stems.sample_rate)
    if not 0 <= first < last:
        parser.error(
            f"--seconds must be within the song's {last:.1f} s, the first before the last; got "
            f"{options.seconds[0]:g} and {options.seconds[1]:g}"
        )
    picture = options.folder / "spectrograms.png"
    part = slice(int(first * stems.sample_rate), int(last * stems.sample_rate))
    shown = {name: audio[:, part] for name, audio in {"song": song, **stems}.items()}
    draw(shown, stems.sample_rate, (first, last), picture)
    print(picture)


def draw(
    audio: dict[str, npt.NDArray[np.float32]],
    rate: float,
    seconds: tuple[float, float],
    path: Path,
) -> None:
    """Plots one spectrogram per row, up to 8 kHz, all from the song's maximum to 80 dB below it.

    Args:
        audio: the part of the song and of its stems that lies between the two ``seconds``.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(audio), sharex=True, figsize=(10, 7), layout="constrained")
    loudest = None
    for axis, (name, samples) in zip(axes, audio.items(), strict=True):
        mono = samples.mean(axis=0)
        loudest = loudest or 20 * np.log10(np.abs(mono).max() + 1e-9) - 20
        axis.specgram(
            mono, NFFT=4096, Fs=rate, noverlap=3072, scale="dB", mode="magnitude",
            vmin=loudest - 80, vmax=loudest, xextent=seconds,
        )  # fmt: skip
        axis.set_ylim(0, 8000)
        axis.set_ylabel(f"{name}, Hz")
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    main()
