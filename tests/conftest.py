"""What several layers' tests share."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A busy machine is slow, not wrong.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory):
    """Tests, and the processes that they start, neither read nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "BSMAMBA2_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
