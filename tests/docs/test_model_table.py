"""The table of published models on the page is that of the catalogue."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from bsmamba2.models.catalogue import parse_catalogue
from bsmamba2.models.registry import PUBLISHED

SCRIPT = Path(__file__).parents[2] / "docs/model_table.py"


def test_the_page_has_the_table_of_the_present_catalogue() -> None:
    spec = importlib.util.spec_from_file_location("model_table", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text(encoding="utf-8")
    assert module.with_table(page) == page, "run python docs/model_table.py"
    assert page.count("\n| `") >= len(PUBLISHED)


def test_the_catalogue_on_the_page_is_a_right_one() -> None:
    page = SCRIPT.with_name("models.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (model,) = parse_catalogue(example.encode(), "the page", PUBLISHED)
    assert model.settings.unknown(model.family) == ()
