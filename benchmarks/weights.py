"""Random weights for a shipped graph, written without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from bsmamba2.models.graph import shipped_graphs


def random_model(size: str, folder: Path) -> Path:
    """Writes ``size.safetensors`` for the shipped graph ``size``: tiny, small, medium or paper."""
    shapes = next(g.manifest.initialisers for g in shipped_graphs() if g.path.stem == size)
    random = np.random.default_rng(0)
    path = folder / f"{size}.safetensors"
    save_file(
        {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()},
        path,
    )
    return path
