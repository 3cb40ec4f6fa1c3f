"""How this copy was installed: commands to add extras or upgrade, and versions for bug reports.

pip records the source of a package (PEP 610, ``direct_url.json``): the URL of a folder, file or
repository. So the suggested commands fit a checkout and a wheel file. There is no release on an
index: where the source is unknown or gone, the commands install what the extra requires instead.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

__all__ = [
    "install_command", "installed_folder", "installed_version", "report", "upgrade_command",
    "version",
]  # fmt: skip

DISTRIBUTION = "bsmamba2"

REPORTED = (
    "onnxruntime", "onnxruntime-gpu", "numpy", "soundfile", "soxr", "safetensors", "av",
    "pedalboard", "torch", "onnx", "tensorrt-rtx-cu13-bindings", "tensorrt-cu13-bindings",
)  # fmt: skip
"""Packages that results and failures depend on."""


def version() -> str:
    """Returns the version of this copy; ``0+unknown`` in a checkout that is not installed."""
    return installed_version(DISTRIBUTION) or "0+unknown"


def installed_version(distribution: str) -> str | None:
    """Returns the version of a distribution, or None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed_folder(distribution: str) -> Path | None:
    """Returns the folder that a distribution is installed in, or None if it is not installed."""
    try:
        return Path(str(metadata.distribution(distribution).locate_file("")))
    except metadata.PackageNotFoundError:
        return None


def install_command(extra: str = "", *, force: bool = False) -> str:
    """Returns a command that adds an extra to this copy, or installs the copy again.

    Args:
        extra: an extra of ``pyproject.toml``; empty for the package alone.
        force: whether to rebuild the package even if it is installed; dependencies are left alone.
    """
    options = ["--force-reinstall", "--no-deps"] if force else []
    extras = f"[{extra}]" if extra else ""
    url, editable = _origin()
    if url is None:
        requirements = _requirements(extra)
        target = " ".join(f'"{requirement}"' for requirement in requirements)
        if not requirements:
            target = f'".{extras}"' if extras else "."
            target += f" (in a checkout of {DISTRIBUTION})"
    elif url.startswith("file:"):
        target = _quoted(url2pathname(urlsplit(url).path) + extras)
        options += ["-e"] if editable else []
    else:
        target = f'"{DISTRIBUTION}{extras} @ {url}"'
    return " ".join(["pip install", *options, target])


def upgrade_command() -> str:
    """Returns the command that replaces this copy with a newer one."""
    url, editable = _origin()
    if url is None:
        return f"pip install . (in a newer checkout of {DISTRIBUTION})"
    if editable:
        return f"git -C {_quoted(url2pathname(urlsplit(url).path))} pull && {install_command()}"
    return f"{install_command()} (a newer version of it)"


def report() -> str:
    """Returns the versions that a bug report needs, one line for each part."""
    lines = [
        f"{DISTRIBUTION} {version()}",
        f"Python {platform.python_version()} ({platform.python_implementation()})",
        f"{platform.platform()}, {platform.machine()}",
    ]
    found = ((name, installed_version(name)) for name in REPORTED)
    return "\n".join([*lines, *(f"{name} {known}" for name, known in found if known)])


def _requirements(extra: str) -> list[str]:
    """Returns what an extra requires, from the metadata of this copy; empty if it has none."""
    try:
        stated = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    found: list[str] = []
    for line in stated:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        if not re.search(rf"""extra == (['"]){re.escape(extra)}\1""", marker):
            continue
        own = re.fullmatch(rf"{DISTRIBUTION}\[([\w,-]+)\]", requirement)
        names = own[1].split(",") if own else []
        found += [part for name in names for part in _requirements(name)] or [requirement]
    return found


def _origin() -> tuple[str | None, bool]:
    """Returns the URL that this copy came from, None if unknown or gone, and if it is editable."""
    try:
        record = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        root = Path(__file__).parents[2]
        is_checkout = (root / "pyproject.toml").is_file()
        return (root.as_uri() if is_checkout else None), is_checkout
    if record is None:
        return None, False
    stored = json.loads(record)
    editable = bool(stored.get("dir_info", {}).get("editable"))
    repository, url = stored.get("vcs_info"), str(stored["url"])
    if repository is None:
        is_gone = url.startswith("file:") and not Path(url2pathname(urlsplit(url).path)).exists()
        return (None if is_gone else url), editable
    revision = repository.get("requested_revision")
    url = f"{repository['vcs']}+{stored['url']}" + (f"@{revision}" if revision else "")
    return url, editable


def _quoted(path: str) -> str:
    """Adds double quotes, or single ones if the path contains characters that a shell expands."""
    return shlex.quote(path) if set(path) & set('"$`!') else f'"{path}"'
