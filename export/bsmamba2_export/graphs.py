"""Writes the graphs without weights that the runtime ships.

Each size of BSMamba2 has five: whole chunks from spectra, whole chunks from audio, in float32 and
in the two precisions of GPUs, and steps of a stream. Each size of another network has one, for
whole chunks from spectra (HT Demucs: from spectra and audio).
``python -m bsmamba2_export.graphs`` writes them into the runtime of this checkout, with the SHA-256
of the code that they depend on; with names of files, only those, if nothing changed the others.
Tests compare both with the current code.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from onnx import ModelProto

import bsmamba2.models
import bsmamba2_network
from bsmamba2.audio import fourier
from bsmamba2.files.part_file import write_atomically
from bsmamba2_export import artifact
from bsmamba2_export.exporter import describe
from bsmamba2_export.precision import accept_float32
from bsmamba2_export.trace import finish, trace_nodes
from bsmamba2_network import HTDEMUCS, PRESETS, ROFORMERS, SCNETS
from bsmamba2_network.families import untrained

FILES = {
    f"{preset}{suffix}.onnx": (preset, *form)
    for preset in PRESETS
    for suffix, form in (
        ("", ("spectrum", False, "fp32")),
        ("-waveform", ("waveform", False, "fp32")),
        ("-waveform-fp16", ("waveform", False, "fp16")),
        ("-waveform-bf16", ("waveform", False, "bf16")),
        ("-streaming", ("spectrum", True, "fp32")),
    )
} | {f"{size}.onnx": (size, None, False, "fp32") for size in (*ROFORMERS, *SCNETS, *HTDEMUCS)}
"""The size, io, streaming and precision of each file."""

SOURCE = "source.json"
"""The file next to the graphs with the hash of the code that they were written from."""


def source_sha256() -> str:
    """Returns the SHA-256 of the code of the network and the export, without comment lines.

    Whole packages are hashed, so it also changes with code that the graphs do not depend on.
    """
    folders = Path(bsmamba2_network.__file__).parent, Path(__file__).parent
    paths = sorted(path for folder in folders for path in folder.glob("*.py"))
    digest = hashlib.sha256()
    for path in paths:
        lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        code = "\n".join(line for line in lines if line and not line.startswith("#"))
        digest.update(f"{path.name}\n{code}\n".encode())
    return digest.hexdigest()


def weightless_graph(
    preset: str, io: str | None, streaming: bool, precision: str = "fp32"
) -> ModelProto:
    """Returns a size's graph without its weights, which are float32 in any precision.

    BSMamba2's are portable, because the runtime brings kernels for its nodes. Attention runs on
    ONNX Runtime's own operators.
    """
    net = untrained(preset)
    target = "portable" if preset in PRESETS else "ort"
    manifest = describe(net, preset, target=target, io=io, streaming=streaming, precision=precision)
    traced = trace_nodes(net, manifest.io, streaming=streaming, precision=precision)
    model = finish(traced, net, target, precision=precision)
    accept_float32(model)
    artifact.set_manifest(model, manifest)
    outside = {*manifest.initialisers, fourier.ANALYSIS, fourier.SYNTHESIS}
    return artifact.without_weights(model, outside)


def main() -> None:
    """Writes the graphs that are named, or every graph."""
    folder = Path(bsmamba2.models.__file__).parent / "graphs"
    folder.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FILES:
        artifact.write(weightless_graph(*FILES[name]), folder / name)
        print(f"wrote {name}")
    content = json.dumps({"source_sha256": source_sha256()}, indent=1)
    write_atomically(folder / SOURCE, f"{content}\n".encode())


if __name__ == "__main__":
    main()
