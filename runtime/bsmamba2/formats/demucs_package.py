"""Reads what Demucs stores with its weights, and which models of a bag separate what.

Demucs' ``.th`` files hold a class, its arguments and the weights; the pickle reader returns the
class as a name. Its safetensors files hold the same as JSON in the metadata. Here both become that
metadata, and the metadata becomes a :class:`DemucsPackage`. A bag is a yaml file that names models
by their signatures, the first part of their file names.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from bsmamba2.errors import ModelError, printable

HT_DEMUCS = "demucs.htdemucs.HTDemucs"
CLASS_KEY, ARGUMENTS_KEY, OPTIONS_KEY = "klass", "args", "kwargs"

MAX_MEMBERS = 16


@dataclass(frozen=True)
class DemucsPackage:
    """The options of an HT Demucs, as plain values, by the names of demucs' arguments."""

    options: Mapping[str, Any]

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of the stems."""
        return tuple(self.options["sources"])

    @property
    def sample_rate(self) -> int:
        """Sample rate, Hz."""
        return int(self.options.get("samplerate", 44100))

    @property
    def chunk(self) -> int:
        """Length of audio that the network is trained on, samples."""
        return int(self.options.get("segment", 10) * self.sample_rate)


def metadata_of(document: Any, path: Path) -> dict[str, str]:
    """Returns the metadata of a ``.th`` file; it is empty for any other document.

    Args:
        document: what :func:`bsmamba2.formats.pickle_reader.read_torch_file` returned.
        path: the file, for errors.

    Raises:
        ModelError: the file is quantised, or an option is not a plain value.
    """
    if not isinstance(document, dict) or not {CLASS_KEY, OPTIONS_KEY, "state"} <= document.keys():
        return {}
    state = document["state"]
    if isinstance(state, dict) and "__quantized" in state:
        raise _quantised(path)
    try:
        return {
            CLASS_KEY: str(document[CLASS_KEY]),
            ARGUMENTS_KEY: json.dumps(document.get(ARGUMENTS_KEY, ()), default=_encode),
            OPTIONS_KEY: json.dumps(document[OPTIONS_KEY], default=_encode),
        }
    except (TypeError, ValueError, RecursionError):
        raise _damaged(path) from None


def package_of(metadata: Mapping[str, str], path: Path) -> DemucsPackage | None:
    """Returns the package that a file's metadata describes, or None if they describe none.

    Raises:
        ModelError: the metadata are damaged, or of another network of Demucs.
    """
    if not {CLASS_KEY, OPTIONS_KEY} <= metadata.keys():
        return None
    if "structure" in metadata:
        raise _quantised(path)
    kind = metadata[CLASS_KEY]
    if kind != HT_DEMUCS:
        raise ModelError(
            f"{path} is a model of the class {printable(kind)}: of Demucs' networks only HT Demucs "
            f"({HT_DEMUCS}) is supported"
        )
    try:
        arguments = json.loads(metadata.get(ARGUMENTS_KEY, "[]"), object_hook=_decode)
        options = json.loads(metadata[OPTIONS_KEY], object_hook=_decode)
        if len(arguments) == 1:
            options["sources"] = arguments[0]  # the first argument of the class
        if len(arguments) <= 1 and _is_plausible(options):
            return DemucsPackage(options)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        pass
    raise _damaged(path)


def _is_plausible(options: Mapping[str, Any]) -> bool:
    """Whether the options that this module interprets are in their ranges."""
    stems, sample_rate = options["sources"], options.get("samplerate", 44100)
    segment = options.get("segment", 10)
    return (
        isinstance(stems, list)
        and 1 <= len(stems) <= 16
        and all(isinstance(stem, str) for stem in stems)
        and type(sample_rate) is int
        and 1 <= sample_rate <= 384000
        and type(segment) in (int, float, Fraction)
        and 1 <= segment * sample_rate <= 1 << 24
    )


@dataclass(frozen=True)
class Bag:
    """Models whose outputs are averaged, each stem with its own weights."""

    members: tuple[str, ...]
    """The signatures of the models."""
    weights: tuple[tuple[float, ...], ...] | None
    """One row for each model and one column for each stem. None: all alike."""
    segment_s: float | None
    """Length of the chunks, s, if it is not the models' own."""

    def shares(self, stem: int) -> dict[str, float]:
        """Returns the models that a stem is made of, with their shares, which add up to 1."""
        if self.weights is None:
            return {member: 1 / len(self.members) for member in self.members}
        column = [row[stem] for row in self.weights]
        shares = zip(self.members, column, strict=True)
        return {member: weight / sum(column) for member, weight in shares if weight}


def bag_of(document: Mapping[str, Any], path: Path) -> Bag:
    """Reads a bag from the parsed yaml.

    Raises:
        ModelError: the yaml is no bag, or its weights do not fit its models.
    """
    members, rows = document.get("models"), document.get("weights")
    segment_s = document.get("segment")
    if not (
        isinstance(members, list)
        and 1 <= len(members) <= MAX_MEMBERS
        and all(isinstance(m, str) and re.fullmatch(r"\w{1,64}", m, re.ASCII) for m in members)
        and len(set(members)) == len(members)
    ):
        got = printable(repr(members))
        raise ModelError(
            f"the models in {path} must be 1 to {MAX_MEMBERS} different signatures of letters and "
            f"digits; got {got}"
        )
    if rows is not None and not _fits(rows, len(members)):
        raise ModelError(
            f"the weights in {path} must be {len(members)} rows, one for each model, of equally "
            f"many numbers from 0, with one above 0 in every column; got {printable(repr(rows))}"
        )
    if segment_s is not None and not (_is_number(segment_s) and segment_s > 0):
        got = printable(repr(segment_s))
        raise ModelError(f"the segment in {path} must be a number of seconds above 0; got {got}")
    weights = None if rows is None else tuple(tuple(map(float, row)) for row in rows)
    return Bag(tuple(members), weights, None if segment_s is None else float(segment_s))


def find_member(folder: Path, signature: str) -> Path:
    """Returns the file of a bag's model: ``SIGNATURE.safetensors``, or ``SIGNATURE-….th``.

    Raises:
        ModelError: the folder has no such file, or several.
    """
    safe = folder / f"{signature}.safetensors"
    if safe.is_file():
        return safe
    name = re.compile(rf"{re.escape(signature)}(-[0-9a-f]{{8}})?\.th")
    found = sorted(path for path in folder.iterdir() if name.fullmatch(path.name))
    if len(found) == 1:
        return found[0]
    files = ", ".join(path.name for path in found) or "none"
    raise ModelError(
        f"{folder} must hold one file of the model {signature}, {signature}.safetensors or "
        f"{signature}-….th; got {files}: put the file there"
    )


def require_named_hash(path: Path, sha256: str) -> None:
    """Requires that a ``.th`` file has the hash that its name states: SIGNATURE-HASH.th.

    Raises:
        ModelError: the file has another hash.
    """
    match = re.fullmatch(r"\w+-([0-9a-f]{8})\.th", path.name)
    if match and not sha256.startswith(match.group(1)):
        raise ModelError(
            f"the SHA-256 of {path} must begin with {match.group(1)}, as its name states; got "
            f"{sha256[:8]}: download it again"
        )


def _fits(rows: Any, count: int) -> bool:
    if not isinstance(rows, list) or len(rows) != count:
        return False
    if not all(isinstance(row, list) and len(row) == len(rows[0]) >= 1 for row in rows):
        return False
    if not all(_is_number(weight) and weight >= 0 for row in rows for weight in row):
        return False
    return all(any(row[stem] > 0 for row in rows) for stem in range(len(rows[0])))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9 and math.isfinite(value)


def _encode(value: Any) -> Any:
    """Encodes a fraction as Demucs does; no option is any other object."""
    if isinstance(value, Fraction):
        parts = {"numerator": value.numerator, "denominator": value.denominator}
        return {"_type": "fraction", **parts}
    raise TypeError


def _decode(value: dict[str, Any]) -> Any:
    if value.get("_type") != "fraction":
        return value
    numerator, denominator = value["numerator"], value["denominator"]
    if not (type(numerator) is type(denominator) is int):
        raise ValueError("a fraction must be of whole numbers")
    return Fraction(numerator, denominator)


def _quantised(path: Path) -> ModelError:
    return ModelError(
        f"{path} is a quantised Demucs model, which is not supported: use HT Demucs (htdemucs, "
        "htdemucs_ft, htdemucs_6s)"
    )


def _damaged(path: Path) -> ModelError:
    return ModelError(f"the options stored in {path} are damaged: download it again")
