"""How this copy was installed: the commands that add to it, and the versions for a bug report.

pip records where a package came from (PEP 610, ``direct_url.json``): nothing for an index, else the
URL of a folder or a file. So the suggested commands also work for a checkout or a wheel file.
"""

from __future__ import annotations

import json
import platform
import shlex
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

__all__ = ["install_command", "installed_version", "report", "upgrade_command", "version"]

DISTRIBUTION = "bsmamba2"

REPORTED = (
    "onnxruntime", "onnxruntime-gpu", "numpy", "soundfile", "soxr", "safetensors", "av",
    "pedalboard", "torch", "onnx", "tensorrt-rtx-cu13-bindings", "tensorrt-cu13-bindings",
)  # fmt: skip
"""Packages that results and failures depend on."""


def version() -> str:
    """The version of this copy; ``0+unknown`` in a checkout that is not installed."""
    return installed_version(DISTRIBUTION) or "0+unknown"


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution; None without one."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def install_command(extra: str = "", *, force: bool = False) -> str:
    """The command that installs this copy again with an extra.

    Args:
        extra: of ``pyproject.toml``; empty for the package itself.
        force: rebuilds the package, and nothing else.
    """
    options = ["--force-reinstall", "--no-deps"] if force else []
    extras = f"[{extra}]" if extra else ""
    url, editable = _origin()
    if url is None:
        target = f'"{DISTRIBUTION}{extras}"' if extras else DISTRIBUTION
    elif url.startswith("file:"):
        target = _quoted(url2pathname(urlsplit(url).path) + extras)
        options += ["-e"] if editable else []
    else:
        target = f'"{DISTRIBUTION}{extras} @ {url}"'
    return " ".join(["pip install", *options, target])


def upgrade_command() -> str:
    """The command that replaces this copy by a newer one."""
    url, editable = _origin()
    if url is None:
        return f"pip install -U {DISTRIBUTION}"
    if editable:
        return f"git -C {_quoted(url2pathname(urlsplit(url).path))} pull && {install_command()}"
    return f"{install_command()}, of a newer version"


def report() -> str:
    """The versions that a bug report needs, one line for each part."""
    lines = [
        f"{DISTRIBUTION} {version()}",
        f"Python {platform.python_version()} ({platform.python_implementation()})",
        f"{platform.platform()}, {platform.machine()}",
    ]
    found = ((name, installed_version(name)) for name in REPORTED)
    return "\n".join([*lines, *(f"{name} {known}" for name, known in found if known)])


def _origin() -> tuple[str | None, bool]:
    """The URL that this copy was installed from, if it was no index, and whether it is editable."""
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
    repository = stored.get("vcs_info")
    if repository is None:
        return str(stored["url"]), editable
    revision = repository.get("requested_revision")
    url = f"{repository['vcs']}+{stored['url']}" + (f"@{revision}" if revision else "")
    return url, editable


def _quoted(path: str) -> str:
    """Double quotes work in every shell; single ones where it would expand something inside."""
    return shlex.quote(path) if set(path) & set('"$`!') else f'"{path}"'
