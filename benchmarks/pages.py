"""Where the benchmarks write their pages and tables."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"


def replace_in_readme(begin: str, end: str, table: str) -> None:
    """Replaces the text of README.md between two markers; the markers stay.

    Raises:
        ValueError: README.md does not have both markers, in this order.
    """
    readme = ROOT / "README.md"
    before, begins, rest = readme.read_text().partition(begin)
    _, ends, after = rest.partition(end)
    if not begins or not ends:
        raise ValueError(f"README.md must contain {begin} and then {end}")
    readme.write_text(f"{before}{begin}\n{table}\n{end}{after}")
