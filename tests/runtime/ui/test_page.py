"""The page itself, as it is sent to the browser."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests

from support.ui_server import UiServer


@pytest.fixture(scope="module")
def config(ui: UiServer) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{ui.url}config", timeout=300).json()
    return found


def component(config: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (c["props"] for c in config["components"] if c["props"].get("elem_id") == name)
    return dict(found)


def test_nothing_is_reported_shared_or_recorded(config: dict[str, Any]) -> None:
    assert config["analytics_enabled"] is False
    assert config["footer_links"] == []
    assert not config.get("run_history")


def test_the_fonts_are_those_of_the_system(ui: UiServer, config: dict[str, Any]) -> None:
    assert not config.get("stylesheets")
    css = requests.get(f"{ui.url}theme.css", timeout=300).text
    assert "system-ui" in css
    assert "@import" not in css
    assert re.findall(r"url\(.(?!data:)", css) == []


def test_a_song_is_all_that_has_to_be_chosen(config: dict[str, Any]) -> None:
    values = {name: component(config, name)["value"] for name in ("model", "format", "device")}
    assert values == {"model": "small", "format": "as the song, or FLAC", "device": "auto"}
    assert component(config, "stems")["value"] == ["vocals", "instrumental"]


def test_the_page_says_that_nothing_leaves_the_machine(config: dict[str, Any]) -> None:
    texts = [c["props"].get("value") for c in config["components"] if c["type"] == "markdown"]
    assert "sent nowhere" in " ".join(texts)
