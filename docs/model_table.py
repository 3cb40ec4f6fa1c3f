"""Writes the table of published models in models.md from the catalogue: python docs/model_table.py.

A test fails if the page was written from another catalogue.
"""

from __future__ import annotations

from pathlib import Path

from bsmamba2.formats.families import TITLES
from bsmamba2.models.catalogue import Figures, Published
from bsmamba2.models.registry import PUBLISHED

PAGE = Path(__file__).with_name("models.md")
START, END = "<!-- the catalogue: docs/model_table.py -->", "<!-- end of the catalogue -->"


def table(models: tuple[Published, ...]) -> str:
    """The models as a table in Markdown."""
    lines = [
        "| name | network | stems | MB | licence of the weights | published SDR in dB | note |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_row, models)])


def with_table(page: str) -> str:
    """The page with the table of today's catalogue."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table(PUBLISHED)}\n{END}{after}"


def _row(model: Published) -> str:
    size = "" if model.size is None else f"{model.size / 1e6:,.0f}"
    licence = f"[{model.licence}]({model.page})" if model.page else model.licence
    figures = "; ".join(map(_figures, model.figures))
    stems = ", ".join(model.stems)
    cells = (f"`{model.name}`", TITLES[model.family], stems, size, licence, figures, model.note)
    return f"| {' | '.join(cells)} |"


def _figures(figures: Figures) -> str:
    values = ", ".join(f"{stem} {value:.2f}" for stem, value in figures.sdr_db.items())
    return f"{values} ({figures.test_set}, {figures.source})"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
