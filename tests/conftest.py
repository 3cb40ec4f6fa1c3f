"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all", action="store_true", help="run the tests marked slow too, on new random examples"
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts pytest in the background makes it and its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--all"):
        settings.load_profile("new examples")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


# A slow example on a busy machine is no failure. Every run tries the same few examples; ``--all``
# and the campaigns try new ones, and more of them. No other conftest may load a profile: it would
# be that of every module that is imported later.
settings.register_profile("same examples", deadline=None, derandomize=True, max_examples=25)
settings.register_profile("new examples", deadline=None)
settings.load_profile("same examples")


@pytest.fixture(scope="session", autouse=True)
def _empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps tests, and the processes that they start, from using the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "BSMAMBA2_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
