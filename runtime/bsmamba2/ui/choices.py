"""What a visitor of the page can choose: models, stems, formats and devices of this machine."""

from __future__ import annotations

from collections.abc import Sequence

from bsmamba2.devices import nvidia
from bsmamba2.errors import Error, ModelError
from bsmamba2.models import registry
from bsmamba2.separator import Separator

AS_THE_SONG = "as the song, or FLAC"

FORMATS = {
    AS_THE_SONG: None,
    "FLAC": "flac",
    "WAV": "wav",
    "AIFF": "aiff",
    "MP3": "mp3",
    "Ogg Vorbis": "ogg",
}
"""The formats that are offered, and their names in ``--format``."""


def models(added: Sequence[str] = ()) -> list[str]:
    """Returns the models that are offered: those added, then every named one that is here."""
    here = [name for name in registry.names() if _is_here(name)]
    return list(dict.fromkeys([*added, *here]))


def _is_here(name: str) -> bool:
    try:
        return bool(registry.find_members(name))
    except ModelError:
        return False


def stems(model: str) -> tuple[str, ...]:
    """Returns the stems of a model; none if it cannot be opened, which separating it will say."""
    try:
        return Separator(model, "auto", load=False).manifest.outputs
    except Error:
        return ()


def devices() -> list[str]:
    """Returns the devices to offer; whether a model runs there is known when it is loaded."""
    driver = nvidia.driver()
    cards = range(len(driver.cards)) if driver else ()
    return ["auto", "cpu", *(f"{kind}:{card}" for kind in ("cuda", "tensorrt") for card in cards)]
