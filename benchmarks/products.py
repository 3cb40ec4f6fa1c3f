"""What the narrower products of the CPU's kernels cost in quality: SNR to float32, and SDR.

    python -m benchmarks.products [SONG...] [--seconds 8] [--paper]

A SONG is a Native Instruments stem file (.stem.mp4: the mixture, drums, bass, other, vocals), or a
folder of ``bsmamba2 dataset`` with mixture.flac and vocals.flac. The shipped model separates each
song in float32 and with each kind of product, then the song with vocals in its first second only,
then silence. --paper adds one second of noise through a network of the paper's size with random
weights. Each kind runs in a process of its own, with the portable products where the processor has
no others, so any machine gives these figures; their speed is not measured. Writes the table of
benchmarks/results/products.md. Needs the extras av and cpu.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile

from benchmarks.arguments import argument_parser
from benchmarks.machine import conditions
from benchmarks.pages import RESULTS, ROOT
from benchmarks.weights import random_model
from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.models.check import check_input

KINDS = ("float32", "bf16x3", "bf16", "int8")
ABOUT = {
    "float32": "float32",
    "bf16x3": "`bf16x3`, three bf16 products: `exact` on AMX",
    "bf16": "`bf16`: `fast` on AMX and AVX512-BF16",
    "int8": "`int8`: `fast` on VNNI",
}
BEGIN, END = "<!-- benchmarks/products.py -->", "<!-- end of products -->"
RATE = 44100

Song = tuple[Audio, Audio]
"""The mixture and the vocals, (channels, samples)."""


def main() -> None:
    parser = argument_parser("products", __doc__)
    parser.add_argument("songs", nargs="*", type=Path, help="Stem files or folders of a data set.")
    parser.add_argument("--seconds", type=float, default=8, help="The length of each excerpt.")
    parser.add_argument("--paper", action="store_true", help="Add the paper's size.")
    parser.add_argument("--separate", nargs=3, help="(internal)")
    arguments = parser.parse_args()
    if arguments.separate:
        separate(*map(Path, arguments.separate))
        return
    names, columns = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for path in arguments.songs:
            mixture, vocals = read(path, arguments.seconds)
            name = f"{path.name.split('.')[0]}, {mixture.shape[1] / RATE:.1f} s"
            sparse = np.where(np.arange(vocals.shape[1]) < RATE, vocals, 0)
            for about, part in (("", vocals), (", vocals in the first second only", sparse)):
                names.append(name + about)
                columns.append(compare(mixture - vocals + part, part, Path(), Path(scratch)))
        if arguments.paper:
            model = random_model("paper", Path(scratch))
            names.append("the paper's size, random weights, 1 s of noise")
            columns.append(compare(check_input(0, 2, RATE), None, model, Path(scratch)))
        names.append("silence, 1 s")
        columns.append(compare(np.zeros((2, RATE), np.float32), None, Path(), Path(scratch)))
    text = table(names, columns)
    print(text)
    page = RESULTS / "products.md"
    before, begins, rest = page.read_text().partition(BEGIN)
    _, ends, after = rest.partition(END)
    assert begins, page
    assert ends, page
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def read(path: Path, seconds: float) -> Song:
    """Returns the start of a song and of its vocals."""
    length = round(seconds * RATE)
    if path.is_dir():
        parts = [soundfile.read(path / f"{name}.flac", length)[0] for name in ("mixture", "vocals")]
        return parts[0].T.astype(np.float32), parts[1].T.astype(np.float32)
    tracks = []
    for index in (0, 4):
        with av.open(str(path)) as file:
            frames = list(file.decode(audio=index))
        tracks.append(np.concatenate([frame.to_ndarray() for frame in frames], axis=1)[:, :length])
    return tracks[0], tracks[1]


def compare(
    mixture: Audio, vocals: Audio | None, model: Path, scratch: Path
) -> dict[str, tuple[float, float]]:
    """Returns the SNR to float32 and the SDR of each kind, in dB."""
    np.save(scratch / "mixture.npy", mixture)
    found = {}
    for kind in KINDS:
        out = scratch / f"{kind}.npy"
        command = [sys.executable, "-m", "benchmarks.products", "--separate"]
        command += [str(model), str(scratch / "mixture.npy"), str(out)]
        variables = {**os.environ, "BSMAMBA2_PRODUCTS": kind}
        done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["products"].startswith(kind), done.stdout
        stem = np.load(out)
        expected = np.load(scratch / "float32.npy")
        sdr = np.nan if vocals is None else snr_db(vocals, stem)
        found[kind] = snr_db(expected, stem), sdr
    return found


def separate(model: Path, mixture: Path, out: Path) -> None:
    """Writes the vocals of a mixture, and prints the products that ran."""
    separator = Separator(None if model == Path() else model, "cpu", speed="fast")
    np.save(out, separator(np.load(mixture), RATE)["vocals"])
    print(json.dumps({"products": separator.products}))


def table(names: list[str], columns: list[dict[str, tuple[float, float]]]) -> str:
    """Returns a row for each kind and a column for each song, and how they were measured."""
    lines = [f"| products | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for kind in KINDS:
        cells = []
        for column in columns:
            agreement, sdr = column[kind]
            base = column["float32"][1]
            quality = "" if np.isnan(sdr) else f"SDR {sdr:.3f} dB ({sdr - base:+.4f})"
            equal = "equal" if agreement == np.inf else f"SNR {agreement:.1f} dB"
            snr = "" if kind == "float32" else equal
            cells.append(", ".join(part for part in (snr, quality) if part))
        lines.append(f"| {ABOUT[kind]} | {' | '.join(cells)} |")
    about = conditions("every thread", "onnxruntime")
    return "\n".join([*lines, "", f"{about}; `python -m benchmarks.products`."])


if __name__ == "__main__":
    main()
