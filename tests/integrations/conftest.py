"""What the tests of trackers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Once
from tests.integrations.tracked import TRACKERS, config, train_in_two


@pytest.fixture(scope="session")
def tracked_run(tiny_bert: Path, tiny_data: Path, once: Once) -> Path:
    """Folder of a run that four trackers were written while it was stopped and resumed; tests only read it."""
    return once.made("tracked", lambda folder: train_in_two(config(tiny_bert, tiny_data, TRACKERS), folder))
