"""The graphs without weights that ``gpu.py`` runs and no wheel ships, for ``--graphs FOLDER``.

    python benchmarks/gpu_graphs.py FOLDER

In bf16 and with ONNX Runtime's own scan, from spectra and from audio. Needs the extra export, no
GPU; they are a megabyte or two. What is poured into them is a checkpoint's float32, which the graph
itself rounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gpu_engines import graph_name
from onnx import ModelProto, TensorProto, helper

from bsmamba2.audio import fourier
from bsmamba2_export import artifact
from bsmamba2_export.exporter import describe
from bsmamba2_export.precision import KINDS
from bsmamba2_export.trace import finish, trace_scans
from bsmamba2_network import BSMamba2

FORMS = (("portable", "bf16"), ("ort", "fp32"), ("ort", "bf16"))
"""Targets and precisions."""


def write_graphs(
    folder: Path, preset: str = "paper", forms: tuple[tuple[str, str], ...] = FORMS
) -> list[Path]:
    """Writes every form for spectra and for audio; returns the files."""
    net = BSMamba2.untrained(preset)
    written = []
    for io in ("spectrum", "waveform"):
        traced = trace_scans(net, io)
        for target, precision in forms:
            model = ModelProto()
            model.CopyFrom(traced)
            model = finish(model, net, target, precision=precision)
            manifest = describe(net, preset, target=target, io=io, precision=precision)
            artifact.set_manifest(model, manifest)
            take_float32(model)
            outside = {*manifest.initialisers, fourier.ANALYSIS, fourier.SYNTHESIS}
            written.append(folder / graph_name(preset, target, precision, io))
            artifact.write(artifact.without_weights(model, outside), written[-1])
    return written


def take_float32(model: ModelProto) -> None:
    """Lets narrow initialisers come as float32, in place: the graph begins by rounding them."""
    casts = []
    for value in model.graph.initializer:
        if value.data_type not in KINDS.values():
            continue
        narrow = f"{value.name}.rounded"
        for node in model.graph.node:
            node.input[:] = [narrow if name == value.name else name for name in node.input]
        casts.append(
            helper.make_node("Cast", [value.name], [narrow], f"cast_{narrow}", to=value.data_type)
        )
        value.data_type = TensorProto.FLOAT
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", default="paper")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for path in write_graphs(asked.folder, asked.preset):
        print(f"wrote {path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
