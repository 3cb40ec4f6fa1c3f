"""Real singers from public repositories: a cappella singing, stems of songs, and whole songs.

A repository is identified by its commit, whose hash verifies every file. All of them are used for
training only, and none of their singers is in another split. This project contains none of the
audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Use = Literal["solo", "stems", "songs"]
"""Solo is singing without accompaniment, stems are the tracks of songs, and songs are mixtures,
whose voices a teacher separates."""


@dataclass(frozen=True)
class Repository:
    """A git repository, and the files to use from it."""

    name: str
    address: str
    commit: str
    use: Use
    licence: str
    """Licence of the audio used."""
    by: str
    """Title of the work, and all people credited for that audio."""
    files: str
    """Regular expression for paths in the repository; its group, if any, is the song."""
    vocals: str = ""
    """Regular expression for the paths of the stems that are vocals."""


REPOSITORIES = (
    # A copy of the corpus; without pjs022 and pjs062, as the shipped weights were trained.
    Repository(
        "pjs",
        "https://github.com/justln1113/TEST",
        "82321a6a51573a5bf0542ed16e99546686a193b7",
        "solo",
        "CC-BY-SA-4.0",
        "PJS corpus: Junya Koguchi, Shinnosuke Takamichi",
        r"^PJS/PJS_corpus_ver1\.1/wav/pjs(?!022|062)\d+\.wav$",
    ),
    # The songs and stems that the shipped weights were trained on.
    Repository(
        "everythingisfree",
        "https://github.com/ichbinsoftware/everythingisfree",
        "c9299620cbc657cd92b5fc056d072c99508ca0a1",
        "stems",
        "CC0-1.0",
        "Everything is Free: Software-Entwicklungskit",
        r"([23467]\.[A-Z][a-z]+)_Stem_(?!MINILOGUE|PLUCK|PAD \+|BGVOX MAIN).*\.m4a$",
        vocals=r"VOX",
    ),
    Repository(
        "librosa-data",
        "https://github.com/librosa/data",
        "450cdd8a002c98e7bdbfebb309fc1ed024001f77",
        "songs",
        "CC-BY-3.0",
        "Let's Go Fishin': Karissa Hobbs",
        r"^audio/(Karissa_Hobbs_-_Lets_Go_Fishin)\.hq\.ogg$",
    ),
    Repository(
        "ultrastar-songs",
        "https://github.com/UltraStar-Deluxe/songs",
        "c9246c799050acec96a03183df4b85493d283d51",
        "songs",
        "CC-BY-SA-2.5",
        "On the run: Joshua Morin",
        r"/Joshua Morin - (On the run)/audio\.ogg$",
    ),
)


def format_rows() -> list[str]:
    """Returns a row of the table of sources for each repository."""
    return [
        f"| {r.name} | {r.commit[:12]} | train, {r.use} | {r.licence} | {r.by} |"
        for r in REPOSITORIES
    ]


def format_addresses() -> list[str]:
    """Returns a section in Markdown for each repository."""
    return [
        f"\n## {r.name}\n\n{r.address}, commit {r.commit}. Licence: {r.licence}."
        for r in REPOSITORIES
    ]
