"""The inputs and outputs that a manifest implies, checked against those of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from bsmamba2.audio.array import Audio
from bsmamba2.errors import ModelError, shown
from bsmamba2.formats.manifest import Manifest

Shapes: TypeAlias = dict[str, tuple[int, ...]]
"""Shapes by the names of tensors; −1 for any size."""


def expected_tensors(manifest: Manifest) -> tuple[Shapes, Shapes]:
    """Returns the inputs and outputs of a graph, in the order of the engine's calls.

    The states of a stream stay on the server, so they are not among them.
    """
    stems, channels = len(manifest.stems), manifest.channels
    spectrum: tuple[int, ...] = (channels, -1, manifest.bins, 2)
    waveform: tuple[int, ...] = (channels, -1)
    outputs: Shapes
    if manifest.streaming:
        names = {"block": spectrum, "lookahead": spectrum}
        outputs = {f"{name}_stems": (-1, stems, *sizes) for name, sizes in names.items()}
    elif manifest.io == "both":
        names = {"spectrum": spectrum, "waveform": waveform}
        outputs = {"stems": (-1, stems, *spectrum), "waveform_stems": (-1, stems, *waveform)}
    else:
        sizes = spectrum if manifest.io == "spectrum" else waveform
        names = {manifest.io: sizes}
        outputs = {"stems": (-1, stems, *sizes)}
    return {name: (-1, *sizes) for name, sizes in names.items()}, outputs


def require_tensors(metadata: Mapping[str, Any], manifest: Manifest, model: str) -> None:
    """Requires a server's model to have the inputs and outputs that its manifest implies.

    Args:
        metadata: the server's answer about the model.
        manifest: the manifest.
        model: the model's name on the server.

    Raises:
        ModelError: a tensor is missing, or has another type or shape.
    """
    for kind, expected in zip(("inputs", "outputs"), expected_tensors(manifest), strict=True):
        found = described(metadata, kind)
        if found.keys() != expected.keys() or not all(
            _fits(found[name], expected[name]) for name in expected
        ):
            raise ModelError(
                f"the server's model {model!r} must have the {kind} {expected} of "
                f"{manifest.name}, as FP32; got {shown(found)}: write its repository again with "
                "bsmamba2 triton"
            )


def described(metadata: Mapping[str, Any], kind: str) -> Shapes:
    """Returns the shapes of a server's tensors of type FP32, by name."""
    listed = metadata.get(kind)
    try:
        return {
            str(tensor["name"]): tuple(int(size) for size in tensor["shape"])
            for tensor in (listed if isinstance(listed, list) else ())
            if tensor["datatype"] == "FP32"
        }
    except (KeyError, TypeError, ValueError):
        return {}


def require_shape(values: Audio, shape: tuple[int, ...], model: str) -> None:
    """Requires the shape of an output.

    Raises:
        ModelError: it is another one.
    """
    if values.shape != shape:
        raise ModelError(
            f"the server's model {model!r} must return {shape}; got {values.shape}: write its "
            "repository again with bsmamba2 triton"
        )


def _fits(found: Sequence[int], expected: Sequence[int]) -> bool:
    """Whether two shapes may describe the same tensor."""
    pairs = zip(found, expected, strict=False)
    return len(found) == len(expected) and all(-1 in pair or pair[0] == pair[1] for pair in pairs)
