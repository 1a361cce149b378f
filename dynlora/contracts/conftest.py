"""Settings of pytest for the contracts, wherever they run."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark of tests that take long."""
    config.addinivalue_line("markers", "torture: full products of what is sampled otherwise")
