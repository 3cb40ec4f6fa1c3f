"""The catalogue: what is known of published models, as a JSON file that this module validates.

``catalogue.json`` in the package and the files that users add have the same form::

    {"format": 1, "models": [{
        "name": "my_model", "family": "bs_roformer", "purpose": "vocals",
        "stems": ["vocals"], "residual": "instrumental", "licence": "MIT",
        "page": "https://…", "note": "one line",
        "files": [{"url": "https://…/x.ckpt", "bytes": 1234, "sha256": "…",
                   "stems": ["vocals"], "mirrors": [{"url": …, "bytes": …, "sha256": …}]}],
        "figures": [{"test_set": "MUSDB18-HQ test", "source": "MSST", "sdr_db": {"vocals": 10.9}}],
        "settings": {"sample_rate": 44100, "hop": 441, "chunk": 352800, "overlap": 0.5,
                     "zero_dc": false, "normalize": false}}]}

``name``, ``family``, ``purpose``, ``stems``, ``licence`` and ``files`` are required, and in a file
its ``url``. ``bytes`` and ``sha256`` may be null where nobody publishes them. A file is untrusted:
its size is bounded, and every field is checked before it is used.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from bsmamba2.errors import ModelError, first_line, printable
from bsmamba2.formats.manifest import FAMILIES
from bsmamba2.formats.model_settings import ModelSettings
from bsmamba2.models.json_fields import Field

_T = TypeVar("_T")

FORMAT = 1
MAX_BYTES = 1 << 20
"""Size of a catalogue file."""
MAX_MODEL_BYTES = 16 << 30
"""Size of a model's file, stated or not."""
MAX_MODELS = 1000

SUFFIXES = (".ckpt", ".pt", ".pth", ".th", ".safetensors")
"""The suffixes of checkpoints, which are what a catalogue lists."""

AVERAGE = "average"
"""The key of a figure for all stems."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_STEM = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"[!-~]{1,500}")
_LOCAL = ("127.0.0.1", "localhost", "::1")

_SETTINGS = {
    "bs_mamba2": ("sample_rate", "hop", "chunk", "overlap"),
    "bs_roformer": ("sample_rate", "hop", "chunk", "overlap", "zero_dc"),
    "mel_band_roformer": ("sample_rate", "hop", "chunk", "overlap", "zero_dc"),
    "scnet": ("sample_rate", "chunk", "overlap", "normalize"),
    "htdemucs": ("sample_rate", "chunk", "overlap"),
}
"""The settings that the networks of a family have."""


@dataclass(frozen=True)
class Source:
    """A place that has a file."""

    url: str
    size: int | None = None
    """Bytes; None if nobody states it."""
    sha256: str | None = None
    """None if nobody publishes it; then the first download is pinned."""

    @property
    def suffix(self) -> str:
        return Path(urlsplit(self.url).path).suffix.lower()


@dataclass(frozen=True)
class PublishedFile:
    """A file of a model, and where it is published."""

    sources: tuple[Source, ...]
    """The publisher's, then mirrors: the same weights, perhaps in another file format."""
    stems: tuple[str, ...]
    """The stems that this file is used for."""


@dataclass(frozen=True)
class Figures:
    """Published results on one test set."""

    test_set: str
    source: str
    """Who measured them."""
    sdr_db: Mapping[str, float]
    """SDR in dB by stem; ``average`` is that of all stems."""


@dataclass(frozen=True)
class Published:
    """A model published elsewhere, downloaded on request."""

    name: str
    family: str
    purpose: str
    """What people use it for, such as ``vocals``, ``karaoke``."""
    stems: tuple[str, ...]
    """The stems that its network returns, in order."""
    files: tuple[PublishedFile, ...]
    """One, or several that each serve some of the stems."""
    licence: str
    """Licence of the weights as their publisher states it; ``not stated``; or ``not checked``, if
    nobody has looked for this catalogue."""
    residual: str | None = None
    """The name of the mixture minus the stems. Default: the one that suits the stems."""
    page: str | None = None
    """The publisher's web page."""
    note: str = ""
    figures: tuple[Figures, ...] = ()
    settings: ModelSettings = field(default_factory=ModelSettings)
    """What the tensors do not tell, with stems and residual."""

    @property
    def size(self) -> int | None:
        """The bytes of all files; None if one is not known."""
        sizes = [file.sources[0].size for file in self.files]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names that users can ask for, as in :attr:`Manifest.available`."""
        outputs = self.stems if self.residual is None else (*self.stems, self.residual)
        derived = "vocals" in outputs and "instrumental" not in outputs
        return (*outputs, "instrumental") if derived else outputs

    def file_name(self, file: PublishedFile, source: Source) -> str:
        """Returns the name of a downloaded file: the model's, so that it can be recognised."""
        part = f"_{'_'.join(file.stems)}" if len(self.files) > 1 else ""
        return f"{self.name}{part}{source.suffix}"


def read_catalogue(path: Path, taken: Sequence[Published] = ()) -> tuple[Published, ...]:
    """Reads and validates a catalogue.

    Args:
        path: the JSON file.
        taken: models that are known already; their names and files cannot be used again. So a name
            means the same file to everybody.

    Raises:
        ModelError: the file cannot be read, is not JSON, or a field is wrong; the message has the
            path of the field, what is allowed, and what it got.
    """
    shown = printable(str(path), 1000)
    try:
        if not path.is_file():
            raise ModelError(f"the catalogue {shown} is not a file: check its name")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the catalogue {shown} cannot be read ({first_line(error)}): check its name"
        ) from None
    return parse_catalogue(content, shown, taken)


def parse_catalogue(
    content: bytes, source: str, taken: Sequence[Published] = ()
) -> tuple[Published, ...]:
    """Works like :func:`read_catalogue`, for the content of a file.

    Raises:
        ModelError: as for :func:`read_catalogue`.
    """
    if len(content) > MAX_BYTES:
        raise ModelError(f"the catalogue {source} must have at most {MAX_BYTES:,} bytes: split it")
    try:
        document = json.loads(
            content, parse_constant=_refuse_constant, object_pairs_hook=_without_repetition
        )
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"the catalogue {source} must be JSON: {printable(' '.join(str(error).split()))}"
        ) from None
    try:
        models = _document(document)
        _require_unique((*taken, *models), len(taken))
    except ModelError as error:
        raise ModelError(f"the catalogue {source} is wrong: {error}") from None
    return models


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{printable(repr(repeated), 60)} is given twice in one object")
    return found


def _document(document: Any) -> tuple[Published, ...]:
    top = Field(document).members(required=("format", "models"))
    top["format"].integer(FORMAT, FORMAT)
    return tuple(_model(item) for item in top["models"].items(0, MAX_MODELS))


def _model(item: Field) -> Published:
    fields = item.members(
        required=("name", "family", "purpose", "stems", "licence", "files"),
        optional=("residual", "page", "note", "figures", "settings"),
    )
    name = fields["name"].match(_NAME, "1 to 64 of a-z 0-9 _ . -, and start with one of a-z 0-9")
    if name.endswith((*SUFFIXES, ".onnx", ".engine")):
        fields["name"].fail("a name without the suffix of a file")
    family = fields["family"].choice(FAMILIES)
    stems = _stems(fields["stems"])
    residual = _optional(fields, "residual", _stem)
    if residual in stems:
        fields["residual"].fail("another name than the stems'")
    settings = ModelSettings()
    if "settings" in fields:
        settings = _settings(fields["settings"], family)
    model = Published(
        name=name,
        family=family,
        purpose=fields["purpose"].text(40).lower(),
        stems=stems,
        files=_files(fields["files"], stems),
        licence=fields["licence"].text(80),
        residual=residual,
        page=_optional(fields, "page", _url),
        note=fields["note"].text(300) if "note" in fields else "",
        figures=tuple(map(_figures, fields["figures"].items(0, 16))) if "figures" in fields else (),
        settings=dataclasses.replace(settings, stems=stems, residual=residual),
    )
    known = (*model.outputs, AVERAGE)
    for index, figures in enumerate(model.figures):
        for stem in figures.sdr_db:
            if stem not in known:
                place = f"{item.path}.figures[{index}].sdr_db"
                raise ModelError(
                    f"{place} must have keys of {', '.join(known)}; got {printable(repr(stem))}"
                )
    return model


def _files(item: Field, stems: tuple[str, ...]) -> tuple[PublishedFile, ...]:
    listed = item.items(1, 16)
    files = tuple(_file(entry, stems, alone=len(listed) == 1) for entry in listed)
    served = [stem for file in files for stem in file.stems]
    if sorted(served) != sorted(stems):
        raise ModelError(
            f"{item.path} must serve each of the stems {', '.join(stems)} with one file; got "
            f"{printable(', '.join(served))}"
        )
    return files


def _file(item: Field, stems: tuple[str, ...], *, alone: bool) -> PublishedFile:
    required = ("url",) if alone else ("url", "stems")
    fields = item.members(required, optional=("bytes", "sha256", "mirrors", "stems"))
    sources = [_source(fields)]
    if "mirrors" in fields:
        mirrors = fields["mirrors"].items(0, 8)
        optional = ("bytes", "sha256")
        sources += [_source(entry.members(("url",), optional)) for entry in mirrors]
    for index, source in enumerate(sources[1:]):
        for other in sources[: index + 1]:
            if source.suffix == other.suffix and (
                source.sha256 != other.sha256 or source.sha256 is None
            ):
                raise ModelError(
                    f"{item.path}.mirrors[{index}] must have the sha256 of {other.url}, or be "
                    f"another kind of file than {source.suffix}"
                )
    return PublishedFile(
        sources=tuple(sources), stems=_stems(fields["stems"]) if "stems" in fields else stems
    )


def _source(fields: Mapping[str, Field]) -> Source:
    url = _url(fields["url"])
    source = Source(
        url,
        _optional(fields, "bytes", lambda item: item.integer(1, MAX_MODEL_BYTES)),
        _optional(fields, "sha256", lambda item: item.match(_SHA256, "64 of 0-9 a-f, or null")),
    )
    if source.suffix not in SUFFIXES:
        fields["url"].fail(f"the address of a file in {', '.join(SUFFIXES)}")
    return source


def _optional(fields: Mapping[str, Field], name: str, read: Callable[[Field], _T]) -> _T | None:
    item = fields.get(name)
    return None if item is None or item.value is None else read(item)


def _url(item: Field) -> str:
    url = item.match(_URL, "at most 500 printable ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        host, credentials, _ = parts.hostname, parts.username or parts.password, parts.port
    except ValueError:
        item.fail("a web address")
    safe = parts.scheme == "https" or (parts.scheme == "http" and host in _LOCAL)
    if not safe or not host:
        item.fail("an address that begins with https://")
    if credentials:
        raise ModelError(f"{item.path} must be an address without a user name or password")
    return url


def _stems(item: Field) -> tuple[str, ...]:
    stems = tuple(_stem(entry) for entry in item.items(1, 16))
    if len(set(stems)) != len(stems):
        item.fail("different names")
    return stems


def _stem(item: Field) -> str:
    return item.match(_STEM, "a name of a-z 0-9 _ -")


def _figures(item: Field) -> Figures:
    fields = item.members(("test_set", "source", "sdr_db"))
    values = fields["sdr_db"].mapping(16)
    if not values:
        fields["sdr_db"].fail("SDR in dB by stem")
    sdr_db = {stem: value.number(-100, 100) for stem, value in values.items()}
    return Figures(fields["test_set"].text(80), fields["source"].text(80), MappingProxyType(sdr_db))


def _settings(item: Field, family: str) -> ModelSettings:
    fields = item.members(optional=_SETTINGS[family], owner=f"{family} settings")
    longest_hop = 1 << 14 if family == "bs_mamba2" else 512  # RoFormers have one window, of 2048
    return ModelSettings(
        sample_rate=_optional(fields, "sample_rate", lambda f: f.integer(8000, 384000)),
        hop=_optional(fields, "hop", lambda f: f.integer(1, longest_hop)),
        chunk=_optional(fields, "chunk", lambda f: f.integer(4096, 1 << 24)),
        overlap=_optional(fields, "overlap", lambda f: f.number(0, 0.99)),
        zero_dc=_optional(fields, "zero_dc", Field.boolean),
        normalize=_optional(fields, "normalize", Field.boolean),
    )


def _require_unique(models: Sequence[Published], known: int) -> None:
    """Requires that no model has a name, file name or SHA-256 of another one."""
    owners: dict[str, str] = {}
    for index, model in enumerate(models):
        pairs = [(file, source) for file in model.files for source in file.sources]
        files = {f"the file name {model.file_name(*pair)}" for pair in pairs}
        hashes = {f"the sha256 {source.sha256}" for _, source in pairs if source.sha256}
        for key in (f"the name {model.name}", *sorted(files), *sorted(hashes)):
            if key in owners and index >= known:
                raise ModelError(
                    f"models[{index - known}] must not have {key}, which {owners[key]} has: "
                    "rename the model, or use the known one"
                )
            owners[key] = model.name
