"""Demucs' bags: yaml files that make one model out of several, such as ``htdemucs_ft.yaml``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bsmamba2.errors import ModelError, printable
from bsmamba2.formats.demucs_package import Bag, bag_of, find_member
from bsmamba2.formats.yaml_file import read_yaml
from bsmamba2.models.combination import Ensemble


def read_bag(path: Path) -> tuple[Bag, list[Path]]:
    """Reads a bag, and finds the files of its models next to it.

    Raises:
        ModelError: the file is missing or is not a bag, a model is missing, or the chunk is not
            that of the models.
    """
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises if the name is too long
        shown = printable(repr(str(path)))
        raise ModelError(f"there is no model file {shown}: check its name and folder")
    bag = bag_of(read_yaml(path), path)
    if bag.segment_s is not None:
        raise ModelError(
            f"the segment in {path} must be left out; got {bag.segment_s:g}: chunks have the "
            "length that the models were trained with"
        )
    return bag, [find_member(path.parent, signature) for signature in bag.members]


def bag_ensemble(bag: Bag, path: Path, models: Sequence[Path], stems: Sequence[str]) -> Ensemble:
    """Returns the bag as an ensemble.

    Args:
        bag, path: the bag and its file.
        models: the files of its models.
        stems: the stems of its models.

    Raises:
        ModelError: the weights are not those of these stems, or a model has several weights.
    """
    if bag.weights is None:
        return Ensemble(models, stems=[stems] * len(models), name=path.stem)
    weights, used = [], []
    for row in bag.weights:
        positive = {weight for weight in row if weight}
        if len(row) != len(stems) or len(positive) != 1:
            raise ModelError(
                f"the weights in {path} must be {len(stems)} numbers for each model, all that are "
                f"not 0 equal; got {list(row)}: combine the models in a .json file"
            )
        weights.append(positive.pop())
        used.append([stem for stem, weight in zip(stems, row, strict=True) if weight])
    return Ensemble(models, weights=weights, stems=used, name=path.stem)
