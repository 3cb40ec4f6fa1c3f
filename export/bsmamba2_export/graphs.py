"""Writes the graphs without weights that the runtime ships.

Each preset has three: whole chunks from spectra, whole chunks from audio, and steps of a stream.
``python -m bsmamba2_export.graphs`` writes them into the runtime of this checkout. A test compares
the shipped graphs with what the network exports to.
"""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

import bsmamba2.models
from bsmamba2.audio import fourier
from bsmamba2_export import artifact
from bsmamba2_export.exporter import describe
from bsmamba2_export.trace import trace
from bsmamba2_network import PRESETS, BSMamba2

FILES = {
    f"{preset}{suffix}.onnx": (preset, *form)
    for preset in PRESETS
    for suffix, form in (
        ("", ("spectrum", False)),
        ("-waveform", ("waveform", False)),
        ("-streaming", ("spectrum", True)),
    )
}


def weightless_graph(preset: str, io: str, streaming: bool) -> ModelProto:
    """Returns a preset's portable graph without its weights."""
    net = BSMamba2.untrained(preset)
    manifest = describe(net, preset, io=io, streaming=streaming)
    model = trace(net, io, streaming=streaming)
    artifact.set_manifest(model, manifest)
    outside = {*manifest.initialisers, fourier.ANALYSIS, fourier.SYNTHESIS}
    return artifact.without_weights(model, outside)


def main() -> None:
    """Writes every graph."""
    folder = Path(bsmamba2.models.__file__).parent / "graphs"
    folder.mkdir(exist_ok=True)
    for name, form in FILES.items():
        artifact.write(weightless_graph(*form), folder / name)
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
