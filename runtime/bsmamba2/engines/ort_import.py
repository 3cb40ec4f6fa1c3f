"""Imports the installed ONNX Runtime package, or reports the command that fixes it.

``onnxruntime`` and ``onnxruntime-gpu`` hold the same files and overwrite each other.
"""

from __future__ import annotations

import os
from typing import Any

from bsmamba2.devices import nvidia
from bsmamba2.errors import MissingExtra
from bsmamba2.installation import install_command, installed_folder

DISTRIBUTIONS = {"onnxruntime": "cpu", "onnxruntime-gpu": "gpu"}
"""The packages of ONNX Runtime, and the extras that install them."""


def import_onnxruntime() -> Any:
    """Imports the installed ONNX Runtime, and turns its telemetry off.

    Raises:
        MissingExtra: there is none, it is too old or damaged, or both packages are installed, so
            their files are mixed.
    """
    folders = [folder for name in DISTRIBUTIONS if (folder := installed_folder(name))]
    # In two folders each has its own files, and the first on Python's path is imported.
    if len(folders) != len(set(folders)):
        raise MissingExtra(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; run: "
            f"{_reinstall_command()}"
        )
    # Since 1.29 it sends telemetry, including model names, unless this is set before it is loaded.
    # Our users have not agreed to that.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        reason = f" ({error})" if folders else ""
        command = _install_command()
        raise MissingExtra(f"no ONNX Runtime can be loaded{reason}; run: {command}") from None
    if not hasattr(onnxruntime, "InferenceSession"):
        # This remains if both were installed and pip removed one.
        raise MissingExtra(
            f"ONNX Runtime is damaged: its files are missing; run: {_reinstall_command()}"
        )
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        package = next((name for name in DISTRIBUTIONS if installed_folder(name)), "onnxruntime")
        raise MissingExtra(
            f"ONNX Runtime {onnxruntime.__version__} is too old; run: pip install -U "
            f'"{package}>=1.30"'
        )
    onnxruntime.disable_telemetry_events()  # in case other code loaded it first
    return onnxruntime


def gpu_install_command() -> str:
    """Returns the command that replaces the CPU's ONNX Runtime with the one for NVIDIA cards."""
    return f"pip uninstall -y onnxruntime && {install_command('gpu')}"


def _install_command() -> str:
    driver = nvidia.driver()
    return install_command("gpu" if driver and driver.cards else "cpu")


def _reinstall_command() -> str:
    return f"pip uninstall -y {' '.join(DISTRIBUTIONS)} && {_install_command()}"
