"""Every test here has a cache of its own: what was sent is noted there."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(cache: Path) -> None:
    """Use an empty cache."""
