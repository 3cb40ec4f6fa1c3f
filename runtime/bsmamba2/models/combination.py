"""Configurations that make one model out of several: ensembles and chains.

    Ensemble(["a.ckpt", "b.ckpt"], weights=[2, 1])     {"ensemble": ["a.ckpt", "b.ckpt"],
                                                        "weights": [2, 1]}
    Chain("a.ckpt", "dereverb.ckpt", stem="vocals")    {"chain": ["a.ckpt", "dereverb.ckpt"],
                                                        "stem": "vocals"}

The JSON file is used like a model file. It only names models, so reading it runs nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bsmamba2.engines.protocols import Engine
from bsmamba2.errors import ModelError, first_line, not_one_of, printable, require
from bsmamba2.files.regular_file import open_regular
from bsmamba2.models.model_file import (
    BAG_SUFFIXES,
    COMBINATION_SUFFIX,
    SUFFIXES,
    from_any_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

METHODS = ("average", "median", "maximum", "minimum")
MAX_MODELS = 16
MAX_DEPTH = 8
MAX_WEIGHT = 1e6
MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Ensemble:
    """Several models that separate the same mixture; their stems are combined sample by sample.

    Args:
        models: names, paths, engines, or further ensembles and chains; 1 to 16.
        method: ``average``; ``median``, which ignores outliers; or ``maximum`` or ``minimum``: at
            each sample the value of the largest or smallest magnitude.
        weights: one number above 0 per model, for the average. Default: equal weights.
        stems: the stems that each model is used for. Default: all models are used for all stems
            that they have in common.
        name: name of the ensemble. Default: made from the names of its models.

    Raises:
        ModelError: an argument is out of range.
    """

    models: Sequence[ModelSource]
    method: str = "average"
    weights: Sequence[float] | None = None
    stems: Sequence[Sequence[str]] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        models = _sequence(self.models, "models", f"a list of 1 to {MAX_MODELS} models")
        allowed = f"1 to {MAX_MODELS} models"
        require(1 <= len(models) <= MAX_MODELS, "models", allowed, len(models))
        _require_models(models)
        _set(self, models=models)
        if self.method not in METHODS:
            raise ModelError(not_one_of("method", METHODS, self.method))
        if self.weights is not None:
            average = self.method == "average"
            require(average, "method", "average if there are weights", self.method)
            _set(self, weights=_weights(self.weights, len(models)))
        _require_name(self.name)
        if self.stems is not None:
            _set(self, stems=_stem_lists(self.stems, len(models)))


@dataclass(frozen=True)
class Chain:
    """Two models, of which the second separates one stem of the first.

    The outputs are those of the second model and what the first left.

    Args:
        first, second: names, paths, engines, or further ensembles and chains.
        stem: the stem of the first model that the second one separates.
        name: name of the chain. Default: made from the names of its models.

    Raises:
        ModelError: an argument is out of range.
    """

    first: ModelSource
    second: ModelSource
    stem: str = "vocals"
    name: str | None = None

    def __post_init__(self) -> None:
        _require_models(self.models)
        require(_is_name(self.stem), "stem", "a stem of the first model", self.stem)
        _require_name(self.name)

    @property
    def models(self) -> tuple[ModelSource, ModelSource]:
        """Both models."""
        return self.first, self.second


ModelSource: TypeAlias = str | os.PathLike[str] | Engine | Ensemble | Chain
"""What stands for a model: its name or path, an engine, or a combination of models."""


def read_combination(path: Path) -> Ensemble | Chain:
    """Reads a JSON file. Paths in it are relative to its folder.

    Raises:
        ModelError: the file cannot be read, is too large, or is not a combination.
    """
    try:
        with open_regular(path) as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a character that no path can have
        shown = printable(str(path))
        raise ModelError(f"{shown} cannot be read ({first_line(error)}): check its name") from None
    require(len(text) <= MAX_BYTES, f"the size of {path}", f"at most {MAX_BYTES >> 10} KiB", "more")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({first_line(error)}): correct it") from None
    try:
        return replace(_from_json(fields, path.parent, 1), name=path.stem)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except RecursionError:
        raise ModelError(f"{path}: lists must be nested less deeply") from None


def is_named(source: object) -> bool:
    """Whether models are given by names and paths only, so that they can be loaded again."""
    if isinstance(source, (Ensemble, Chain)):
        return all(is_named(model) for model in source.models)
    return source is None or isinstance(source, (str, os.PathLike))


def portable_source(source: ModelSource | None) -> ModelSource | None:
    """Returns what stands for the same model in every folder and process.

    Raises:
        ModelError: there is no such model, or it is an engine.
    """
    if not is_named(source):
        raise ModelError(
            f"model must be a name or a path to copy or pickle a Separator; got {source!r}: create "
            "another Separator from the same engine"
        )
    if isinstance(source, (str, os.PathLike)) and os.fspath(source):
        return from_any_folder(source)
    return source


def is_source(value: object) -> bool:
    """Whether a value can stand for a model; not whether there is such a model."""
    if isinstance(value, (str, os.PathLike, Ensemble, Chain)):
        return True
    return callable(getattr(value, "run", None)) and not isinstance(value, type)


def require_depth(depth: int) -> None:
    """Requires that combinations are not nested too deeply, as in a file that names itself.

    Raises:
        ModelError: they are.
    """
    require(depth <= MAX_DEPTH, "combinations", f"nested up to {MAX_DEPTH} deep", "more")


_FIELDS = {
    "ensemble": {"ensemble", "method", "weights", "stems"},
    "chain": {"chain", "stem"},
}


def _from_json(fields: Any, folder: Path, depth: int) -> Ensemble | Chain:
    require_depth(depth)
    kinds = [kind for kind in _FIELDS if isinstance(fields, Mapping) and kind in fields]
    if len(kinds) != 1:
        raise ModelError(
            'a combination must be an object with "ensemble" or "chain", a list of models; got '
            f"{printable(repr(fields))}"
        )
    kind = kinds[0]
    unknown = sorted(str(name) for name in set(fields) - _FIELDS[kind])
    if unknown:
        raise ModelError(not_one_of(f"a field of {kind}", sorted(_FIELDS[kind]), unknown[0]))
    options = {name: value for name, value in fields.items() if name != kind}
    listed = _sequence(fields[kind], kind, "a list of models")
    members: list[Any] = [_member(value, folder, depth) for value in listed]
    if kind == "ensemble":
        return Ensemble(members, **options)
    require(len(members) == 2, "chain", "a list of 2 models", len(members))
    return Chain(*members, **options)


def _member(value: Any, folder: Path, depth: int) -> ModelSource:
    """Returns a member: a nested combination, a path relative to the folder, or a name."""
    if not isinstance(value, str):
        return _from_json(value, folder, depth + 1)
    path = Path(value)
    is_path = path.suffix in (*SUFFIXES, *BAG_SUFFIXES, COMBINATION_SUFFIX) or len(path.parts) > 1
    return folder / path if is_path else value


def _require_models(models: Iterable[object]) -> None:
    for model in models:
        allowed = "a name, a path, an engine, an Ensemble or a Chain"
        require(is_source(model) and model != "", "a model", allowed, model)


def _require_name(name: object) -> None:
    require(name is None or isinstance(name, str), "name", "text", name)


def _weights(weights: object, models: int) -> tuple[float, ...]:
    allowed = f"a list of {models} numbers, one per model"
    values = _sequence(weights, "weights", allowed)
    require(len(values) == models, "weights", allowed, weights)
    for value in values:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        allowed = f"above 0 and up to {MAX_WEIGHT:g}"
        require(is_number and 0 < value <= MAX_WEIGHT, "each weight", allowed, value)
    return tuple(float(value) for value in values)


def _stem_lists(stems: object, models: int) -> tuple[tuple[str, ...], ...]:
    allowed = f"a list of {models} lists of stems, one list per model"
    lists = _sequence(stems, "stems", allowed)
    require(len(lists) == models, "stems", allowed, stems)
    found = tuple(_sequence(names, "stems", allowed) for names in lists)
    named = all(names and all(_is_name(name) for name in names) for names in found)
    require(named, "stems", allowed, stems)
    return found


def _sequence(values: Any, name: str, allowed: str) -> tuple[Any, ...]:
    is_list = isinstance(values, Sequence) and not isinstance(values, (str, bytes))
    require(is_list, name, allowed, values)
    return tuple(values)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 64


def _set(config: Ensemble, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(config, name, value)
