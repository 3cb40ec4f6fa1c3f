"""Writes the graphs for ``python -m benchmarks.gpu --graphs FOLDER`` that no wheel contains.

    python -m benchmarks.gpu.graphs FOLDER

They are in bf16 or use ONNX Runtime's own scan, for spectra and for audio. They have no weights:
they take those of a checkpoint in float32 and round them. Needs the extra export and one or two
megabytes of disk, but no GPU.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.arguments import argument_parser
from benchmarks.gpu.engines import graph_name
from bsmamba2.audio import fourier
from bsmamba2_export import artifact
from bsmamba2_export.exporter import describe
from bsmamba2_export.precision import accept_float32
from bsmamba2_export.trace import finish, trace_nodes
from bsmamba2_network import BSMamba2

FORMS = (("portable", "bf16"), ("ort", "fp32"), ("ort", "bf16"))
"""Targets and precisions."""


def write_graphs(
    folder: Path, preset: str = "paper", forms: tuple[tuple[str, str], ...] = FORMS
) -> list[Path]:
    """Writes every form for spectra and for audio, and returns the paths."""
    net = BSMamba2.untrained(preset)
    written = []
    for io in ("spectrum", "waveform"):
        for target, precision in forms:
            traced = trace_nodes(net, io, precision=precision)
            model = finish(traced, net, target, precision=precision)
            manifest = describe(net, preset, target=target, io=io, precision=precision)
            artifact.set_manifest(model, manifest)
            accept_float32(model)
            outside = {*manifest.initialisers, fourier.ANALYSIS, fourier.SYNTHESIS}
            written.append(folder / graph_name(preset, target, precision, io))
            artifact.write(artifact.without_weights(model, outside), written[-1])
    return written


def main() -> None:
    parser = argument_parser("gpu.graphs", __doc__)
    parser.add_argument("folder", type=Path, help="The folder to write to.")
    parser.add_argument("--preset", default="paper", help="The size. Default: paper.")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for path in write_graphs(arguments.folder, arguments.preset):
        print(f"wrote {path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
