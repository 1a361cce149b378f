"""Settings of pytest for the contracts, wherever they run."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models are quickest on one thread; torch reads it once


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark of tests that take long."""
    config.addinivalue_line("markers", "torture: full products of what is sampled otherwise")
