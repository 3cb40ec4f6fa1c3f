"""``bsmamba2 man``: one manual page for each command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.commands import run_command


# click-man calls a function of click that click deprecates.
@pytest.mark.filterwarnings("ignore:'click.utils.make_default_short_help':DeprecationWarning")
def test_every_command_of_the_runtime_has_a_page(tmp_path: Path) -> None:
    pytest.importorskip("click_man", reason="click-man is not installed")
    result = run_command("man", tmp_path / "man1")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'man1'}\n")
    pages = {path.name for path in (tmp_path / "man1").iterdir()}
    for command in ("", "-separate", "-info", "-models", "-models-fetch", "-doctor"):
        assert f"bsmamba2{command}.1" in pages
    page = (tmp_path / "man1" / "bsmamba2-separate.1").read_text()
    assert page.startswith('.TH "BSMAMBA2')
    assert "\\-\\-overlap" in page


def test_without_click_man_the_error_contains_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "click_man.core", None)
    result = run_command("man", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.endswith("not installed; run: pip install click-man\n")
