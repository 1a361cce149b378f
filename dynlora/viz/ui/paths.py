"""Paths as whoever started the server would type them."""

from __future__ import annotations

import os
from pathlib import Path

STARTED_IN_VARIABLE = "DYNLORA_STARTED_IN"
"""Folder that `dynlora ui` was started in."""


def from_where_it_started(text: str) -> Path:
    """Return a path as it is meant in the folder that the dashboard was started in; children start elsewhere."""
    return Path(os.environ.get(STARTED_IN_VARIABLE) or os.getcwd()) / Path(os.path.expanduser(text))
